//! An HTTP API that does as it is told: an HTTP/1.1 server for tests, with a script.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
    /// Reads the whole request, and gives an answer later.
    Late {
        /// How much later.
        after: Duration,
        /// Which.
        then: Box<Answer>,
    },
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
    script: Mutex<Script>,
    requests: Mutex<Vec<(Request, Answer)>>,
}

type Early = dyn FnMut(&str) -> Option<Answer> + Send;

/// Where answers come from.
enum Script {
    /// One after the other; the last repeats.
    InTurn(VecDeque<Answer>),
    /// Asked of each request.
    Asked {
        /// When its head was read: an answer for which the body is not waited for.
        early: Box<Early>,
        /// When it was read to its end.
        answer: Box<dyn FnMut(&Request) -> Answer + Send>,
    },
}

impl FakeApi {
    /// Starts an API on a free port of the loopback, which gives these answers one after the other
    /// and repeats the last.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> io::Result<Self> {
        Self::run(Script::InTurn(answers.into_iter().collect())).await
    }

    /// Starts an API that asks `answer` about each request, after it was read to its end, unless `early`
    /// has an answer when only its head was read.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn asking(
        early: impl FnMut(&str) -> Option<Answer> + Send + 'static,
        answer: impl FnMut(&Request) -> Answer + Send + 'static,
    ) -> io::Result<Self> {
        Self::run(Script::Asked { early: Box::new(early), answer: Box::new(answer) }).await
    }

    async fn run(script: Script) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Small, so that what is not read stays with the client.
        socket.set_recv_buffer_size(16 * 1024)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(64)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { script: Mutex::new(script), requests: Mutex::default() });
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
        let scripted = shared.next();
        if scripted == Some(Answer::HangAtOnce) {
            return std::future::pending().await;
        }
        let mut buffer = Vec::new();
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                if let Some(answer) = scripted {
                    shared.give_back(answer);
                }
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
        match scripted.as_ref().or(shared.early(&head).as_ref()) {
            Some(Answer::CloseInTheBody) => return Ok(()),
            Some(Answer::HangAtOnce) => return std::future::pending().await,
            _ => {}
        }
        let length = content_length(&head);
        while buffer.len() < head_end + length {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let request = Request { head, body: buffer.split_off(head_end) };
        let mut answer = scripted.unwrap_or_else(|| shared.asked(&request));
        shared.requests.lock().push((request, answer.clone()));
        while let Answer::Late { after, then } = answer {
            tokio::time::sleep(after).await;
            answer = *then;
        }
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
            Answer::Close | Answer::CloseInTheBody | Answer::HangAtOnce | Answer::Late { .. } => return Ok(()),
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
    /// The next answer of a script that does not look at requests.
    fn next(&self) -> Option<Answer> {
        let mut script = self.script.lock();
        let Script::InTurn(answers) = &mut *script else { return None };
        Some(match answers.len() {
            0 => Answer::Close,
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap_or(Answer::Close),
        })
    }

    fn early(&self, head: &str) -> Option<Answer> {
        match &mut *self.script.lock() {
            Script::InTurn(_) => None,
            Script::Asked { early, .. } => early(head),
        }
    }

    fn asked(&self, request: &Request) -> Answer {
        match &mut *self.script.lock() {
            Script::InTurn(_) => Answer::Close,
            Script::Asked { answer, .. } => answer(request),
        }
    }

    /// The connection ended without a request, so the answer is for the next one.
    fn give_back(&self, answer: Answer) {
        if let Script::InTurn(answers) = &mut *self.script.lock()
            && answers.front() != Some(&answer)
        {
            answers.push_front(answer);
        }
    }
}

impl Request {
    /// The method and the target, as in `POST /v3/mail/send`.
    #[must_use]
    pub fn line(&self) -> &str {
        self.head.lines().next().and_then(|line| line.rsplit_once(' ')).map_or("", |(line, _)| line)
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("the body is no JSON: {error}: {}", String::from_utf8_lossy(&self.body)),
        }
    }
}
