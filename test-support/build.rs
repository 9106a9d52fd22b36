//! Generates what tests speak gRPC with, if they want it.

fn main() {
    println!("cargo::rerun-if-changed=../examples/proto/orders.proto");
    #[cfg(feature = "grpc")]
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_protos(&["../examples/proto/orders.proto"], &["../examples/proto"])
        .expect("protoc takes orders.proto");
}
