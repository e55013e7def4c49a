//! A proxy that notes each call on its way to an emulator.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// One call.
struct Call {
    /// Its first line and headers.
    head: String,
    /// Of a call in JSON: its action and body.
    action: Option<(String, Value)>,
    answer_bytes: usize,
}

/// Sees action and body of a call, and may answer it.
type Look = dyn Fn(&str, &Value) -> Option<String> + Send + Sync;

/// The running proxy; its threads end with the test program.
pub(crate) struct Recorder {
    port: u16,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Recorder {
    /// Forwards to the emulator at this port.
    pub(crate) fn before(upstream: u16) -> Self {
        Self::with(upstream, |_, _| None)
    }

    /// As `before`; `look` sees each call in JSON on its way, and may answer it with an error's body instead.
    pub(crate) fn with(
        upstream: u16,
        look: impl Fn(&str, &Value) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self::on(listener, upstream, Arc::new(look))
    }

    /// As `before`, at this port.
    pub(crate) fn at(port: u16, upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        Self::on(listener, upstream, Arc::new(|_: &str, _: &Value| None))
    }

    fn on(listener: TcpListener, upstream: u16, look: Arc<Look>) -> Self {
        let port = listener.local_addr().unwrap().port();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let noted = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, look) = (Arc::clone(&noted), Arc::clone(&look));
                std::thread::spawn(move || forward(stream, upstream, &noted, &*look));
            }
        });
        Self { port, calls }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The calls in JSON so far: actions and bodies.
    pub(crate) fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().unwrap().iter().filter_map(|call| call.action.clone()).collect()
    }

    /// First line and headers of each call so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|call| call.head.clone()).collect()
    }

    /// Bytes of the largest answer to the calls after this many.
    pub(crate) fn largest_answer_since(&self, calls: usize) -> usize {
        self.calls.lock().unwrap()[calls..]
            .iter()
            .map(|call| call.answer_bytes)
            .max()
            .unwrap_or_default()
    }
}

/// Forwards one request, and closes the connection, so that the next request makes a new one.
fn forward(
    mut client: TcpStream,
    upstream: u16,
    noted: &Mutex<Vec<Call>>,
    look: &Look,
) -> Option<()> {
    let mut asked = Vec::new();
    let mut some = [0; 16_384];
    let head = loop {
        let count = client.read(&mut some).ok().filter(|count| *count > 0)?;
        asked.extend_from_slice(&some[..count]);
        if let Some(end) = asked.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let headers: String = String::from_utf8_lossy(&asked[..head]).into_owned();
    let header = |name: &str| {
        let line = headers.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while asked.len() < head + length {
        let count = client.read(&mut some).ok().filter(|count| *count > 0)?;
        asked.extend_from_slice(&some[..count]);
    }
    let action = header("x-amz-target").and_then(|target| {
        let body = serde_json::from_slice(&asked[head..]).ok()?;
        Some((target.rsplit('.').next()?.to_owned(), body))
    });
    let refused = action.as_ref().and_then(|(action, body)| look(action, body));
    let answer = match refused {
        Some(body) => refusal(&body),
        None => {
            let once = headers.trim_end().to_owned() + "\r\nConnection: close\r\n\r\n";
            ask(upstream, once.as_bytes(), &asked[head..])?
        }
    };
    let answer_bytes = answer.len();
    noted.lock().unwrap().push(Call { head: headers, action, answer_bytes });
    client.write_all(&answer).ok()
}

/// The answer of the emulator.
fn ask(upstream: u16, head: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).ok()?;
    server.write_all(head).ok()?;
    server.write_all(body).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    Some(answer)
}

fn refusal(body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}
