//! The server that is upgraded. It knows nothing of that: no signals, no socket options for sharing, no passed descriptors.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::PORT;

/// Answers every request with the number of its generation, on connections that live as long as the client wants.
pub(super) fn run(generation: u32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen()?.into())?;
        loop {
            let (stream, _) = listener.accept().await.context("accept a connection")?;
            let answer = move |_request| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(generation.to_string()))))
            };
            // Whatever becomes of one connection is nothing to the others.
            tokio::spawn(
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    })
}

/// For both families, or for the one that there is.
fn listen() -> Result<Socket> {
    let (domain, address): (_, SocketAddr) = match super::traffic::has_ipv6() {
        true => (Domain::IPV6, (Ipv6Addr::UNSPECIFIED, PORT).into()),
        false => (Domain::IPV4, (Ipv4Addr::UNSPECIFIED, PORT).into()),
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    // As most servers do: they could not start again soon after their end.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).with_context(|| format!("bind to {address}"))?;
    socket.listen(128).context("listen")?;
    Ok(socket)
}
