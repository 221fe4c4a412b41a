//! `steptime serve` against clients that are many, wrong, slow or hostile.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::root;

/// A server on a port of its own, ended when the test ends.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_steptime"))
            .args([&["serve", "--port", "0"], options].concat())
            .current_dir(root())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
        stream
    }

    /// Sends bytes and reads until the server closes: the status, 0 where it closed without one, and the whole response.
    fn raw(&self, request: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        // A server that refuses may close before all has been sent.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        response(&mut stream)
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address).as_bytes())
    }

    fn post(&self, body: &str) -> Vec<u8> {
        let (host, length) = (self.address, body.len());
        format!(
            "POST /api/predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Most memory that it has held, in KiB.
    #[cfg(target_os = "linux")]
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn response(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status =
        text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    (status.unwrap_or(0), text)
}

fn body(response: &str) -> Value {
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn scenario() -> String {
    std::fs::read_to_string(root().join("scenarios/llama3-8b-h100-zero3.toml")).unwrap()
}

#[test]
fn predictions_are_those_of_run() {
    let server = Server::start(&["scenarios"]);
    let wish = json!({ "scenario": scenario(), "set": ["workload.micro_batch_size=2"], "timeline": true });
    let (status, text) = server.raw(&server.post(&wish.to_string()));
    assert_eq!(status, 200, "{text}");
    let answer = body(&text);
    let report = crate::support::report(&[
        "scenarios/llama3-8b-h100-zero3.toml",
        "--set",
        "workload.micro_batch_size=2",
    ]);
    assert_eq!(answer["report"], report);
    assert!(answer["timeline"]["ranks"][0]["spans"].as_u64().unwrap() > 0);
    assert_eq!(answer["settings"]["micro_batch_size"], 2);
    // The text that comes back is the same scenario.
    let again = json!({ "scenario": answer["scenario"] });
    let (_, text) = server.raw(&server.post(&again.to_string()));
    assert_eq!(body(&text)["report"]["step_time_s"], report["step_time_s"]);
}

#[test]
fn a_thousand_clients_at_once_are_answered_within_bounded_memory() {
    let server = Server::start(&["scenarios"]);
    let wish = server.post(&json!({ "scenario": scenario() }).to_string());
    let page = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).into_bytes();
    let missing = format!("GET /none HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).into_bytes();
    let malformed: [&[u8]; 10] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"POST /api/predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
        b"G\xffT / HTTP/1.1\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\n\r\n",
    ];
    // 1,000 good requests and 100 malformed ones are all on their way before the first answer is read.
    let mut open: Vec<(TcpStream, u16)> = Vec::new();
    for count in 0..1100_usize {
        let (request, wanted): (&[u8], u16) = match count % 11 {
            10 => (malformed[count / 11 % 10], 400),
            0..3 => (&wish, 200),
            3..7 => (&page, 200),
            _ => (&missing, 404),
        };
        let mut stream = TcpStream::connect(server.address).unwrap_or_else(|_| {
            // No descriptors left here: the oldest clients are read first.
            settle(&mut open, 200);
            server.connect()
        });
        stream.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        open.push((stream, wanted));
    }
    settle(&mut open, usize::MAX);
    assert_eq!(server.get("/").0, 200);
    #[cfg(target_os = "linux")]
    assert!(server.peak_kib() < 256 << 10, "{} KiB", server.peak_kib());
}

/// Reads the answers of the first clients.
fn settle(open: &mut Vec<(TcpStream, u16)>, count: usize) {
    let count = count.min(open.len());
    for (mut stream, wanted) in open.drain(..count) {
        let (status, text) = response(&mut stream);
        // A malformed request may also be cut off without a word.
        assert!(status == wanted || (wanted == 400 && status == 0), "{wanted}: {text:.300}");
    }
}

#[test]
fn requests_that_are_not_meant_for_it_are_refused() {
    let server = Server::start(&["scenarios"]);
    let port = server.address.port();
    let with = |lines: &str| server.raw(format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n").as_bytes()).0;
    assert_eq!(with(&format!("Host: localhost:{port}")), 200);
    assert_eq!(with(&format!("Host: evil.example:{port}")), 421);
    assert_eq!(with("Host: evil.example"), 421);
    assert_eq!(with("Accept: */*"), 421);
    assert_eq!(with(&format!("Host: localhost:{port}\r\nHost: evil.example")), 421);
    assert_eq!(with(&format!("Host: localhost:{port}\r\nOrigin: http://evil.example")), 403);
    assert_eq!(with(&format!("Host: localhost:{port}\r\nOrigin: null")), 403);
    let allowed = Server::start(&["--allow-host", "lab.example"]);
    let host = format!("GET / HTTP/1.1\r\nHost: lab.example:{}\r\n\r\n", allowed.address.port());
    assert_eq!(allowed.raw(host.as_bytes()).0, 200);
}

#[test]
fn no_file_outside_its_folder_is_read() {
    let server = Server::start(&["scenarios"]);
    let (status, text) = server.get("/scenarios/rat-256-h100.toml");
    assert_eq!(status, 200);
    assert!(text.ends_with(&std::fs::read_to_string(root().join("scenarios/rat-256-h100.toml")).unwrap()));
    for path in [
        "/scenarios/../Cargo.toml",
        "/scenarios/..%2fCargo.toml",
        "/scenarios/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/scenarios/%2e%2e%2fCargo.toml",
        "/scenarios//etc/passwd",
        "/scenarios/%2fetc%2fpasswd",
        "/scenarios/what-if",
        "/scenarios/a%00.toml",
        "/../../etc/passwd",
        "/Cargo.toml",
    ] {
        let (status, text) = server.get(path);
        assert_eq!(status, 404, "{path}: {text}");
        assert!(!text.contains("root:") && !text.contains("[workspace"), "{path}");
    }
    for file in ["../Cargo.toml", "/etc/passwd", "what-if/../../README.md"] {
        let text = format!("[model]\nfile = \"{file}\"\n[cluster]\nname = \"dgx-h100\"\n");
        let (status, text) = server.raw(&server.post(&json!({ "scenario": text }).to_string()));
        assert_eq!(status, 422, "{text}");
        assert!(text.contains("outside of the served folder"), "{text}");
    }
}

#[test]
fn wrong_and_oversized_bodies_have_their_status() {
    let server = Server::start(&[]);
    let host = server.address;
    let status = |request: &str| server.raw(request.as_bytes()).0;
    assert_eq!(server.raw(&server.post("{")).0, 400);
    assert_eq!(server.raw(&server.post("{\"scenario\": 1}")).0, 400);
    assert_eq!(server.raw(&server.post("{\"scenario\": \"\", \"more\": 1}")).0, 400);
    assert_eq!(
        server.raw(&server.post(&json!({ "scenario": "[model]\nname = \"none\"\n" }).to_string())).0,
        422
    );
    assert_eq!(
        server.raw(&server.post(&json!({ "scenario": "", "set": vec!["a.b=1"; 65] }).to_string())).0,
        400
    );
    let large = json!({ "scenario": "#".repeat(200 << 10) }).to_string();
    assert_eq!(server.raw(&server.post(&large)).0, 413);
    // The same in pieces, whose sum nobody has announced.
    let piece = format!("10000\r\n{}\r\n", "#".repeat(0x10000));
    let chunked = format!(
        "POST /api/predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        piece.repeat(3)
    );
    assert_eq!(status(&chunked), 413);
    assert_eq!(
        status(&format!("POST /api/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n{{}}")),
        415
    );
    assert_eq!(status(&format!("GET /api/predict HTTP/1.1\r\nHost: {host}\r\n\r\n")), 405);
    assert_eq!(status(&format!("DELETE / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 405);
    assert_eq!(status(&format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "a".repeat(100_000))), 431);
    let head = server.raw(format!("HEAD / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    assert!(head.0 == 200 && head.1.ends_with("\r\n\r\n"), "{head:?}");
}

#[test]
fn slow_clients_are_cut_off() {
    let server = Server::start(&[]);
    let begin = Instant::now();
    // A head that never ends, and a body of which half never comes.
    let mut head = server.connect();
    head.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    let mut half = server.connect();
    let whole = server.post("{\"scenario\": \"\"}");
    half.write_all(&whole[..whole.len() - 4]).unwrap();
    let (status, text) = response(&mut half);
    assert_eq!(status, 408, "{text}");
    assert!(matches!(response(&mut head).0, 0 | 408));
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_secs(4) && waited < Duration::from_secs(30), "{waited:?}");
    assert_eq!(server.get("/").0, 200);
}

#[test]
fn what_it_cannot_listen_on_or_serve_is_said() {
    let taken = Server::start(&[]);
    let port = taken.address.port().to_string();
    let second = crate::support::steptime(&["serve", "--port", &port]);
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("cannot be listened on"));
    let nowhere = crate::support::steptime(&["serve", "no/such/folder"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nowhere.stderr).starts_with("error: no/such/folder: "));
}
