//! Generates client and server of `proto/orders.proto`. They do without tonic's own transport.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/orders.proto");
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_protos(&["proto/orders.proto"], &["proto"])?;
    Ok(())
}
