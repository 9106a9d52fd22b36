//! Generates what tests speak gRPC with, if they want it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../examples/proto/orders.proto");
    #[cfg(feature = "grpc")]
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_protos(&["../examples/proto/orders.proto"], &["../examples/proto"])?;
    Ok(())
}
