//! An HTTP API that does as it is told: an HTTP/1.1 server for tests, with a script.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What the API does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Reads the request and answers it.
    Reply {
        /// The status.
        status: u16,
        /// Header lines, without their line ends.
        headers: Vec<String>,
        /// The body.
        body: String,
    },
    /// Reads the head and closes.
    CloseInTheBody,
    /// Reads the whole request and closes.
    Close,
    /// Reads the whole request and says nothing.
    Hang,
    /// Reads nothing and says nothing.
    HangAtOnce,
}

impl Answer {
    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, body: &str) -> Self {
        Self::Reply { status, headers: vec!["Content-Type: application/json".to_owned()], body: body.to_owned() }
    }
}

/// A request that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Request line and headers.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

/// A running API. It ends when dropped.
pub struct FakeApi {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    /// The last answer repeats.
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<(Request, Answer)>>,
}

impl FakeApi {
    /// Starts an API on a free port of the loopback, which gives these answers one after the other
    /// and repeats the last.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Small, so that what is not read stays with the client.
        socket.set_recv_buffer_size(16 * 1024)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(64)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { answers: Mutex::new(answers.into_iter().collect()), requests: Mutex::default() });
        let task = tokio::spawn(serve(listener, shared.clone()));
        Ok(Self { address, shared, task })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request that was read to its end, with what it was answered.
    #[must_use]
    pub fn requests(&self) -> Vec<(Request, Answer)> {
        self.shared.requests.lock().clone()
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let shared = shared.clone();
        sessions.spawn(async move {
            // An error is the client going away, which ends the session just as well.
            let _ = session(socket, &shared).await;
        });
    }
}

async fn session(mut socket: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let answer = shared.next();
        if answer == Answer::HangAtOnce {
            return std::future::pending().await;
        }
        let mut buffer = Vec::new();
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                shared.give_back(answer);
                return Ok(());
            }
        };
        if answer == Answer::CloseInTheBody {
            return Ok(());
        }
        let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
        let length = content_length(&head);
        while buffer.len() < head_end + length {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let request = Request { head, body: buffer.split_off(head_end) };
        shared.requests.lock().push((request, answer.clone()));
        match answer {
            Answer::Reply { status, headers, body } => {
                let mut reply = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n", body.len());
                for header in headers {
                    reply.push_str(&header);
                    reply.push_str("\r\n");
                }
                socket.write_all(format!("{reply}\r\n{body}").as_bytes()).await?;
            }
            Answer::Hang => return std::future::pending().await,
            Answer::Close | Answer::CloseInTheBody | Answer::HangAtOnce => return Ok(()),
        }
    }
}

fn content_length(head: &str) -> usize {
    let length = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    head.lines().find_map(length).unwrap_or(0)
}

impl Shared {
    fn next(&self) -> Answer {
        let mut answers = self.answers.lock();
        match answers.len() {
            0 => Answer::Close,
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap_or(Answer::Close),
        }
    }

    /// The connection ended without a request, so the answer is for the next one.
    fn give_back(&self, answer: Answer) {
        let mut answers = self.answers.lock();
        if answers.front() != Some(&answer) {
            answers.push_front(answer);
        }
    }
}
