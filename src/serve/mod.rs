//! `steptime serve`: a page on this machine that predicts as its controls are moved.
//!
//! What comes in is not trusted: only few connections are open at a time, each for a limited time and with little to say;
//! other pages in the same browser cannot ask (the host and the origin are checked); and no file outside the given folder is
//! read.

mod answer;
mod folder;
mod guard;
mod predict;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;

use crate::cli::ServeArguments;
use crate::failure::{Answer, Failure};
use crate::output;

/// Connections that are open at a time; others wait until one ends.
const CONNECTIONS: usize = 256;
/// Connections that the system keeps waiting.
const BACKLOG: u32 = 2048;
/// For a request's head to arrive.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// For a request's body to arrive.
const BODY_TIME: Duration = Duration::from_secs(5);
/// For a connection from its first byte to its last.
const WHOLE_TIME: Duration = Duration::from_mins(1);
/// Bytes of a request's head.
const MOST_HEAD: usize = 16 << 10;
/// Lines of a request's head.
const MOST_LINES: usize = 64;

/// What every connection needs.
struct Server {
    folder: folder::Folder,
    hosts: guard::Hosts,
    page: String,
    desk: predict::Desk,
}

/// Serves until the process is ended.
pub(crate) fn serve(arguments: &ServeArguments) -> Result<Answer, Failure> {
    let folder = folder::Folder::open(arguments.folder.as_deref())?;
    let page = steptime_plots::live_page(&predict::choices(&folder));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failed = |error: std::io::Error| Failure::Message(format!("the server cannot start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(threads + 1)
        .build()
        .map_err(failed)?;
    runtime.block_on(async {
        let wanted = SocketAddr::new(arguments.address, arguments.port);
        let listener = listen(wanted).map_err(|error| {
            Failure::Message(format!("--address and --port: {wanted} cannot be listened on: {error}"))
        })?;
        let bound = listener.local_addr().map_err(failed)?;
        let hosts = guard::Hosts::new(bound, &arguments.allow_host);
        let server = Arc::new(Server { folder, hosts, page, desk: predict::Desk::new(threads) });
        output::print(&format!("steptime serves http://{bound}/ (Ctrl-C ends it)\n"))?;
        accept(&listener, &server).await
    })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: &TcpListener, server: &Arc<Server>) -> Result<Answer, Failure> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(Answer::Yes) };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, or the client has gone: what is open will end and make room.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let server = Arc::clone(server);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| answer::answer(Arc::clone(&server), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .half_close(true)
                .keep_alive(false)
                .max_buf_size(MOST_HEAD)
                .max_headers(MOST_LINES)
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks off, or takes too long, is its own affair.
            let _ = tokio::time::timeout(WHOLE_TIME, connection).await;
        });
    }
}
