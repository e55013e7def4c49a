//! `serve`: the daemon and the HTTP API in one process. The API knows no sockets: here connections are accepted, within limits.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gpuctl_http::{
    ABANDONED_TIME_MAX, Api, HEADER_BYTES_MAX, HEADER_TIME_MAX, HEADERS_MAX, Settings, router,
};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Sleep, sleep};

use super::run;
use super::submit::model;
use crate::context::Context as Commands;
use crate::failure::{Code, Failure};
use crate::render::{Output, Printer};

/// How long no connection is accepted after that failed: it fails again at once while no file can be opened.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long a client may take nothing of an answer.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);

/// How long requests that are under way may take once the server is to end.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// `gpuctl serve`.
pub(super) async fn serve(
    context: &Commands,
    printer: &Printer,
    address: Option<SocketAddr>,
    allow_actions: bool,
) -> Result<Output, Failure> {
    let http = &context.config.policy.http;
    let address = address.unwrap_or(http.address);
    let is_public = !address.ip().is_loopback();
    if is_public {
        check_keys(context, address).await?;
        printer.note("other machines can call this server, and without TLS others on the way can read keys: have a proxy in front that speaks it");
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
            abandoned_after: ABANDONED_TIME_MAX,
            allow_actions,
            is_public,
        },
    ));
    let connections_max = usize::try_from(http.connections_max.get()).unwrap_or(usize::MAX);
    let server = Server {
        router: router(Arc::clone(&api)),
        places: Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))),
        ending: watch::channel(false).0,
    };
    printer.note(&format!("listening on http://{address}"));
    let output =
        run::watch_beside(context, printer, &api.changed(), server.accept(&listener)).await;
    drop(listener);
    api.close();
    server.end(connections_max).await;
    output
}

/// Refuses an address that other machines can reach unless a key is in force.
async fn check_keys(context: &Commands, address: SocketAddr) -> Result<(), Failure> {
    let keys = context.ports.ledger.keys().await?;
    if keys.iter().any(|key| key.revoked_at.is_none()) {
        return Ok(());
    }
    let message = format!("{address} can be reached from other machines, and no key is in force");
    Err(Failure::new(Code::HttpOpen, message)
        .hint("make one with `gpuctl keys create NAME`, or listen on 127.0.0.1"))
}

/// Accepts connections, and ends them.
struct Server {
    router: axum::Router,
    places: Arc<Semaphore>,
    /// Whether connections are to end once they have answered.
    ending: watch::Sender<bool>,
}

impl Server {
    async fn accept(&self, listener: &TcpListener) {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let (router, ending) = (self.router.clone(), self.ending.subscribe());
            tokio::spawn(async move {
                converse(stream, router, ending).await;
                drop(place);
            });
        }
    }

    /// Waits until every request has its answer, but not for long.
    async fn end(&self, connections_max: usize) {
        self.ending.send_replace(true);
        let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
        // What is cut off then is the client's to send again.
        let _ = tokio::time::timeout(END_TIME_MAX, self.places.acquire_many(all)).await;
    }
}

/// One connection, until the client or a limit ends it, or the server ends.
async fn converse(stream: TcpStream, router: axum::Router, mut ending: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    // A client that closes the connection, or does not speak HTTP, needs no answer.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ending.wait_for(|ending| *ending) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// A connection that ends when the client takes nothing for `WRITE_TIME_MAX`.
struct Patient {
    stream: TcpStream,
    /// Runs while the client takes nothing.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, timer: None }
    }

    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(WRITE_TIME_MAX)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
