//! What the daemon answers over HTTP: to Prometheus, to health checks, to programs and to people. It only ever reads.
//!
//! One thread of its own, which sleeps until somebody asks. Every connection is good for one request, and neither their
//! number, nor their time, nor their size is left to who asks.

mod listen;
mod metrics;
mod status;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::board::Shared;
use super::{Error, Options};
use crate::kernel::{self, Kernel};
pub use listen::Listen;
use status::Devices;
pub use status::schema as status_schema;

/// Connections at a time. More wait for their turn.
const MOST_CONNECTIONS: usize = 16;
/// How long the head of a request may take.
const UNTIL_ASKED: Duration = Duration::from_secs(5);
/// How long a connection may take from beginning to end.
const UNTIL_ANSWERED: Duration = Duration::from_secs(20);
/// Bytes of a request's head; hyper's least is 8 KiB.
const MOST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;
/// Without a turn for so many times the pause between two looks, the loop is stuck.
const MISSED_TURNS: u32 = 3;
/// After the system had no descriptor left for a connection.
const BREATH: Duration = Duration::from_millis(200);

const PAGE: &str = include_str!("page.html");
/// Stands in the page for what only this answer's own script and style know.
const NONCE: &str = "{{nonce}}";
const TEXT: &str = "text/plain; charset=utf-8";

/// Who answers over HTTP, as long as the process runs.
pub(super) struct Server {
    board: Shared,
    /// What goes at the end.
    socket: Option<PathBuf>,
}

/// What an answer is made of.
struct App {
    board: Shared,
    kernel: Mutex<Option<Kernel>>,
    netns: Option<String>,
    stuck_after: Duration,
    /// Only somebody on this host may be meant by the request's `Host`.
    is_local: bool,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Answers from now on, if anybody is to be answered.
    pub(super) fn start(options: &Options, file: String) -> Result<Option<Self>, Error> {
        let Some(listen) = &options.listen else {
            return Ok(None);
        };
        let fail = |source| Error::Listen {
            address: listen.clone(),
            source,
        };
        let board = Shared::new(file);
        let app = Arc::new(App {
            board: board.clone(),
            kernel: Mutex::new(Some(Kernel::open(options.netns.as_deref())?)),
            netns: options.netns.clone(),
            stuck_after: options.resync * MISSED_TURNS + options.lock_timeout,
            is_local: matches!(listen, Listen::Tcp(address) if address.ip().is_loopback()),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(fail)?;
        let listener = {
            let _guard = runtime.enter();
            Listener::bind(listen).map_err(fail)?
        };
        tracing::info!("listening on {}", listener.name(listen));
        std::thread::Builder::new()
            .name("http".into())
            .spawn(move || runtime.block_on(serve(listener, app)))
            .map_err(fail)?;
        let socket = match listen {
            Listen::Unix(path) => Some(path.clone()),
            Listen::Tcp(_) => None,
        };
        Ok(Some(Self { board, socket }))
    }

    pub(super) fn board(&self) -> Shared {
        self.board.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // The next daemon takes away what is left.
            let _ = std::fs::remove_file(socket);
        }
    }
}

impl Listener {
    fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(listener)?))
            }
            Listen::Unix(path) => {
                make_room(path)?;
                let listener = UnixListener::bind(path)?;
                // Who may ask is a matter of the file's group.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                Ok(Self::Unix(listener))
            }
        }
    }

    /// The address with the port that port 0 became.
    fn name(&self, listen: &Listen) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(
                |_| listen.to_string(),
                |address| format!("http://{address}/"),
            ),
            Self::Unix(_) => listen.to_string(),
        }
    }
}

/// A socket that nobody listens at any more was left by a daemon that was killed.
fn make_room(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
        && !directory.exists()
    {
        std::fs::create_dir(directory)?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            use std::os::unix::fs::FileTypeExt;
            // A plain file refuses, too.
            match std::fs::symlink_metadata(path)?.file_type().is_socket() {
                true => std::fs::remove_file(path),
                false => Ok(()),
            }
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn serve(listener: Listener, app: Arc<App>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let app = app.clone();
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    converse(stream, app).await;
                    drop(place);
                })
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(async move {
                    converse(stream, app).await;
                    drop(place);
                })
            }),
        };
        if let Err(error) = accepted {
            tracing::debug!("no connection: {error}");
            tokio::time::sleep(BREATH).await;
        }
    }
}

/// One request and its answer.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, app: Arc<App>) {
    let service = service_fn(|request| {
        let answer = app.answer(&request);
        async { Ok::<_, Infallible>(answer) }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(UNTIL_ASKED)
        .max_buf_size(MOST_HEAD)
        .max_headers(MOST_HEADERS)
        .keep_alive(false)
        // Who has nothing more to say still listens.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(UNTIL_ANSWERED, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("a conversation broke off: {error}"),
        Err(_) => tracing::debug!("a conversation took too long"),
    }
}

type Answer = Response<Full<Bytes>>;

impl App {
    fn answer(&self, request: &Request<Incoming>) -> Answer {
        let mut answer = self.content(request);
        let headers = answer.headers_mut();
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
            .entry(header::CONTENT_SECURITY_POLICY)
            .or_insert(HeaderValue::from_static(
                "default-src 'none'; frame-ancestors 'none'",
            ));
        answer
    }

    fn content(&self, request: &Request<Incoming>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, allowed);
            return answer;
        }
        // A page of somebody else's whose name has come to mean this host would read along (DNS rebinding).
        if self.is_local && !names_this_host(request) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "ask for localhost, or for the address\n",
            );
        }
        match request.uri().path() {
            "/" => page(),
            "/metrics" => self.metrics(),
            "/healthz" => self.health(),
            "/readyz" => self.readiness(),
            "/status" => self.status(),
            "/topology.svg" => self.picture(),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /, /metrics, /healthz, /readyz, /status and /topology.svg\n",
            ),
        }
    }

    fn metrics(&self) -> Answer {
        let devices = self.devices();
        match self
            .board
            .with(|board| metrics::text(board, devices.as_ref()))
        {
            Ok(text) => body(StatusCode::OK, metrics::TYPE, text),
            Err(error) => broken(&error),
        }
    }

    fn status(&self) -> Answer {
        let devices = self.devices();
        let status = self
            .board
            .with(|board| status::Status::new(board, devices.as_ref()));
        match serde_json::to_string_pretty(&status) {
            Ok(text) => body(StatusCode::OK, "application/json", text + "\n"),
            Err(error) => broken(&error),
        }
    }

    fn health(&self) -> Answer {
        let since = self.board.with(|board| board.turned.elapsed());
        if since <= self.stuck_after {
            text(StatusCode::OK, "ok\n")
        } else {
            let words = format!("the loop hasn't turned for {} s\n", since.as_secs());
            text(StatusCode::SERVICE_UNAVAILABLE, words)
        }
    }

    fn readiness(&self) -> Answer {
        let (is_ready, standing) = self.board.with(|board| {
            let is_ready = board.ready && board.in_force.is_some();
            (is_ready, format!("{}\n", board.standing))
        });
        let code = match is_ready {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        text(code, standing)
    }

    fn picture(&self) -> Answer {
        let picture = self.board.with(|board| {
            let in_force = board.in_force.as_ref();
            in_force.map(|in_force| in_force.picture.clone())
        });
        let Some(picture) = picture else {
            return text(StatusCode::NOT_FOUND, "there is no topology in force\n");
        };
        let mut answer = body(StatusCode::OK, "image/svg+xml", picture.to_string());
        let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        answer
    }

    /// The devices as they are now; `None` where the kernel can't be asked.
    fn devices(&self) -> Option<Devices> {
        let mut kernel = self.kernel.lock().unwrap_or_else(PoisonError::into_inner);
        match self.ask(&mut kernel) {
            Ok(devices) => Some(devices),
            Err(error) => {
                tracing::debug!("no counters: {error}");
                // The rest of an answer may still be in the socket.
                *kernel = None;
                None
            }
        }
    }

    fn ask(&self, kernel: &mut Option<Kernel>) -> Result<Devices, kernel::Error> {
        let kernel = match kernel {
            Some(kernel) => kernel,
            None => kernel.insert(Kernel::open(self.netns.as_deref())?),
        };
        kernel.devices()
    }
}

/// Whether a request to a loopback address is meant for it.
fn names_this_host(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(header::HOST);
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        // No browser leaves it out.
        return !request.headers().contains_key(header::HOST);
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn page() -> Answer {
    let mut random = [0; 16];
    if let Err(error) = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
    {
        return broken(&error);
    }
    let nonce = format!("{:032x}", u128::from_ne_bytes(random));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let page = PAGE.replace(NONCE, &nonce);
    let mut answer = body(StatusCode::OK, "text/html; charset=utf-8", page);
    match HeaderValue::from_str(&policy) {
        Ok(policy) => {
            let headers = answer.headers_mut();
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            answer
        }
        Err(error) => broken(&error),
    }
}

fn broken(error: &dyn std::error::Error) -> Answer {
    tracing::warn!("no answer over HTTP: {error}");
    text(StatusCode::INTERNAL_SERVER_ERROR, "see the log\n")
}

fn text(code: StatusCode, text: impl Into<String>) -> Answer {
    body(code, TEXT, text.into())
}

fn body(code: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
