//! HTTP boot (RFC 9110, RFC 9112): loaders, kernels and images for those whom the gate lets in.
//!
//! In rings: the bytes of a request, the decision what to answer, the sockets.

pub mod answer;
pub mod request;
pub mod server;
