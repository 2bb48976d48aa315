//! A tiny agent for tests.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::Client;

/// An agent that has one answer for each connection, and keeps what it was asked.
pub struct Stub {
    /// How to reach it.
    pub client: Client,
    asked: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Stub {
    /// One that answers so, one connection after the other.
    pub fn with(answers: Vec<String>) -> Self {
        Self::answering(answers, false)
    }

    /// One with a single answer, which does not close the connection.
    pub fn that_stays(answer: String) -> Self {
        Self::answering(vec![answer], true)
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.client.socket
    }

    fn answering(answers: Vec<String>, stays: bool) -> Self {
        let folder = tempfile::tempdir().expect("a stub that works");
        let socket = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).expect("a stub that works");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a stub that works");
                let request = read_request(&mut stream).await;
                kept.lock().expect("a stub that works").push(request);
                stream.write_all(answer.as_bytes()).await.expect("a stub that works");
                if stays {
                    std::future::pending::<()>().await;
                }
            }
        });
        Self { client: Client::new(socket), asked, _folder: folder }
    }

    /// The request lines and bodies that came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("a stub that works").clone()
    }
}

/// The request line, and the body if there is one.
async fn read_request(stream: &mut UnixStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.expect("a stub that works");
        text.push_str(std::str::from_utf8(&buffer[..read]).expect("a stub that works"));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().expect("a stub that works")) {
            let line = head.lines().next().expect("a stub that works");
            return format!("{line} {body}").trim_end().to_owned();
        }
    }
}

/// One value, or a refusal.
pub fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A stream that ends with the connection.
pub fn stream(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{body}")
}
