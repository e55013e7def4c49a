//! `serve`: the daemon and the HTTP API in one process. The API knows no sockets: here connections are accepted, within limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gpuctl_http::{Api, HEADER_BYTES_MAX, HEADER_TIME_MAX, HEADERS_MAX, Settings, router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::run;
use super::submit::model;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::render::{Output, Printer};

/// How long no connection is accepted after that failed: it fails again at once while no file can be opened.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// `gpuctl serve`.
pub(super) async fn serve(
    context: &Context,
    printer: &Printer,
    address: Option<SocketAddr>,
) -> Result<Output, Failure> {
    let http = &context.config.policy.http;
    let address = address.unwrap_or(http.address);
    if !address.ip().is_loopback() {
        let message = format!("{address} can be reached from other machines");
        return Err(Failure::new(Code::HttpOpen, message)
            .hint("listen on 127.0.0.1, and have a proxy in front that asks who calls"));
    }
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::new(Code::HttpUnavailable, format!("cannot listen on {address}")).because(&error)
    })?;
    let address = listener.local_addr().unwrap_or(address);
    let api = Arc::new(Api::new(
        context.ports.clone(),
        Settings {
            policy: context.config.policy.clone(),
            models: model::known(context),
            poll_every: context.poll_every(),
        },
    ));
    let connections_max = usize::try_from(http.connections_max.get()).unwrap_or(usize::MAX);
    let accepting = accept(&listener, Arc::clone(&api), connections_max);
    printer.note(&format!("listening on http://{address}"));
    run::watch_beside(context, printer, &api.changed(), accepting).await
}

async fn accept(listener: &TcpListener, api: Arc<Api>, connections_max: usize) {
    let router = router(api);
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            converse(stream, router).await;
            drop(place);
        });
    }
}

/// One connection, until the client or a limit ends it.
async fn converse(stream: TcpStream, router: axum::Router) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A client that closes the connection, or does not speak HTTP, needs no answer.
    let _ = connection.await;
}
