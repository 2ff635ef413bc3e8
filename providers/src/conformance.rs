//! The behaviour suite that every provider must pass, and scripted far sides to run it against.
//!
//! A provider brings a [`Subject`], which arranges its far side for each [`Behaviour`]. [`check`]
//! then holds its answer to what the contract says: who was told about, what the verdict is, and
//! above all that nothing was handed over where the answer says so.

pub mod api;
pub mod http_api;
pub mod smart_host;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::contract::{
    Address, Attempt, Body, BodyType, Delivery, DynProvider, Envelope, Failure, Message, MessageId, Origin, Outcome, Recipient,
    RecipientIndex, ReversePath,
};

/// What the far side does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Takes every message.
    Accepts,
    /// Takes the message for all but the recipient whose address begins with `refused@`.
    RefusesOneRecipient,
    /// Is not there.
    RefusesConnections,
    /// Takes the connection and says nothing. The provider must give up within ten seconds.
    HangsBeforeTheMessage,
    /// Closes while it receives the message.
    ClosesInTheMessage,
    /// Closes after the whole message, without an answer.
    ClosesAfterTheMessage,
    /// Says nothing after the whole message. The provider must answer by the attempt's deadline.
    HangsAfterTheMessage,
    /// Answers the whole message with something that means nothing.
    AnswersNonsense,
    /// Says that there has been too much.
    Throttles,
    /// Refuses our credential.
    RefusesTheCredential,
    /// Refuses the sender.
    RefusesTheSender,
    /// Refuses the message for its content.
    RefusesTheContent,
}

impl Behaviour {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Accepts,
        Self::RefusesOneRecipient,
        Self::RefusesConnections,
        Self::HangsBeforeTheMessage,
        Self::ClosesInTheMessage,
        Self::ClosesAfterTheMessage,
        Self::HangsAfterTheMessage,
        Self::AnswersNonsense,
        Self::Throttles,
        Self::RefusesTheCredential,
        Self::RefusesTheSender,
        Self::RefusesTheContent,
    ];
}

/// What a far side was told that took responsibility for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// To whom, as it was told.
    pub recipients: Vec<String>,
    /// What it was given.
    pub content: SeenContent,
}

/// In which form a far side got the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenContent {
    /// The message itself.
    Raw(Vec<u8>),
    /// The message with a header that was written anew, as where it decides who receives.
    Readdressed(Vec<u8>),
    /// Its fields.
    Fields(SeenFields),
}

/// The fields of a message, as an API got them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenFields {
    /// Subject.
    pub subject: String,
    /// The plain text.
    pub text: Option<String>,
    /// The HTML.
    pub html: Option<String>,
    /// Names and octets of the attachments.
    pub attachments: Vec<(String, Vec<u8>)>,
    /// Other header fields, and Reply-To where the API has a member for it.
    pub headers: Vec<(String, String)>,
}

/// A provider and the far side it talks to.
pub struct Arranged {
    /// The provider.
    pub provider: Arc<dyn DynProvider>,
    /// What the far side has taken. Owns the far side.
    pub taken: Box<dyn Fn() -> Vec<Seen> + Send>,
}

/// A kind of provider under test.
pub trait Subject: Sync {
    /// The kind, as in [`Providers::KINDS`](crate::Providers::KINDS).
    fn kind(&self) -> &'static str;

    /// A fresh provider with a far side that does `behaviour`; `None` where that cannot happen.
    fn arrange(&self, behaviour: Behaviour) -> Arranging<'_>;
}

/// What [`Subject::arrange`] answers.
pub type Arranging<'a> = Pin<Box<dyn Future<Output = Option<Arranged>> + Send + 'a>>;

/// An address of the loopback where nobody listens.
///
/// # Panics
/// When there is no port.
pub async fn nobody() -> std::net::SocketAddr {
    match tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()) {
        Ok(address) => address,
        Err(error) => panic!("no port: {error}"),
    }
}

/// Holds a provider to the contract, for every behaviour that its far side can show.
///
/// # Panics
/// When the provider breaks the contract, saying how.
pub async fn check(subject: &dyn Subject) {
    let mut shown = 0;
    for behaviour in Behaviour::ALL {
        if let Some(arranged) = subject.arrange(behaviour).await {
            shown += 1;
            check_behaviour(subject.kind(), behaviour, &arranged).await;
        }
    }
    assert!(shown >= 2, "{}: a far side can at least take mail, and not be there", subject.kind());
}

async fn check_behaviour(kind: &str, behaviour: Behaviour, arranged: &Arranged) {
    let context = format!("{kind}, {behaviour:?}");
    // Large enough that the buffers in between cannot hold it, where it matters.
    let size = if behaviour == Behaviour::ClosesInTheMessage { 6 << 20 } else { 2048 };
    let patience = if behaviour == Behaviour::HangsAfterTheMessage { Duration::from_secs(1) } else { Duration::from_secs(60) };
    let attempt = attempt(&content(size), patience);
    let begun = Instant::now();
    let delivery = arranged.provider.deliver(attempt.clone()).await;
    let took = begun.elapsed();

    if let Ok(report) = &delivery {
        let told: Vec<RecipientIndex> = report.outcomes.iter().map(|(index, _)| *index).collect();
        let distinct: BTreeSet<_> = told.iter().copied().collect();
        assert_eq!(distinct.len(), told.len(), "{context}: a recipient has two outcomes: {delivery:?}");
        let asked: BTreeSet<_> = attempt.recipients.iter().copied().collect();
        assert_eq!(distinct, asked, "{context}: outcomes are for other recipients than the attempt's");
    }

    let taken = (arranged.taken)();
    let wanted = |index: &RecipientIndex| attempt.message.envelope.recipients[index.0 as usize].address.to_string();
    let mut handed_over: Vec<String> = Vec::new();
    for message in &taken {
        handed_over.extend(message.recipients.iter().cloned());
        check_content(&context, &message.content, &content(size));
    }
    handed_over.sort();
    // The promise on which failover rests: an error means that nobody got anything, and an outcome
    // other than relayed or in doubt means that this recipient did not.
    let may_have_it = |outcome: &Outcome| matches!(outcome, Outcome::Relayed(_) | Outcome::InDoubt(_));
    match &delivery {
        Err(failure) => assert!(taken.is_empty(), "{context}: {failure:?}, and yet the far side took it"),
        Ok(report) => {
            let mut relayed: Vec<String> =
                report.outcomes.iter().filter(|(_, outcome)| may_have_it(outcome)).map(|(index, _)| wanted(index)).collect();
            relayed.sort();
            if report.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::InDoubt(_))) {
                assert!(handed_over.iter().all(|address| relayed.contains(address)), "{context}: more took it than is told: {delivery:?}");
            } else {
                assert_eq!(handed_over, relayed, "{context}: what was taken is not what is told: {delivery:?}");
            }
        }
    }
    check_verdict(&context, behaviour, &delivery, &wanted);
    if behaviour == Behaviour::HangsBeforeTheMessage {
        assert!(took < Duration::from_secs(10), "{context}: it took {took:?} to give up");
    }
    if behaviour == Behaviour::HangsAfterTheMessage {
        assert!(took < patience + Duration::from_secs(2), "{context}: {took:?} is past the deadline");
    }
}

fn check_content(context: &str, seen: &SeenContent, sent: &[u8]) {
    let end = |message: &[u8]| memchr::memmem::find(message, b"\r\n\r\n").map(|at| message[at..].to_vec());
    match seen {
        SeenContent::Raw(seen) => assert!(seen == sent, "{context}: the content was changed on its way"),
        SeenContent::Readdressed(seen) => assert!(end(seen) == end(sent), "{context}: the body was changed on its way"),
        SeenContent::Fields(fields) => {
            let text = fields.text.as_deref().unwrap_or_default().replace("\r\n", "\n");
            let body = String::from_utf8_lossy(&end(sent).unwrap_or_default()[4..]).replace("\r\n", "\n");
            assert!(
                fields.subject == "conformance" && text.trim_end() == body.trim_end(),
                "{context}: another text arrived: {:?}",
                fields.subject
            );
        }
    }
}

fn check_verdict(context: &str, behaviour: Behaviour, delivery: &Delivery, wanted: &dyn Fn(&RecipientIndex) -> String) {
    let all = |expected: fn(&Outcome) -> bool| {
        delivery.as_ref().is_ok_and(|report| !report.outcomes.is_empty() && report.outcomes.iter().all(|(_, outcome)| expected(outcome)))
    };
    let right = match behaviour {
        Behaviour::Accepts => all(|outcome| matches!(outcome, Outcome::Relayed(_))),
        Behaviour::RefusesOneRecipient => delivery.as_ref().is_ok_and(|report| {
            report.outcomes.iter().all(|(index, outcome)| match wanted(index).starts_with("refused@") {
                true => matches!(outcome, Outcome::Bounced(_)),
                false => matches!(outcome, Outcome::Relayed(_)),
            })
        }),
        Behaviour::RefusesConnections | Behaviour::HangsBeforeTheMessage | Behaviour::ClosesInTheMessage => {
            matches!(delivery, Err(Failure::Unavailable(_)))
        }
        Behaviour::ClosesAfterTheMessage | Behaviour::HangsAfterTheMessage | Behaviour::AnswersNonsense => is_in_doubt(delivery),
        Behaviour::Throttles => matches!(delivery, Err(Failure::Throttled { .. })),
        Behaviour::RefusesTheCredential => matches!(delivery, Err(Failure::Unauthorized(_))),
        Behaviour::RefusesTheSender => matches!(delivery, Err(Failure::SenderRefused(_))),
        Behaviour::RefusesTheContent => matches!(delivery, Err(Failure::Rejected(_))),
    };
    assert!(right, "{context}: the verdict is wrong: {delivery:?}");
}

/// Whether a handover is in doubt. Recipients of a later call, who were not asked about any more, are put
/// off: that none of them was told to the far side is held elsewhere.
pub(crate) fn is_in_doubt(delivery: &Delivery) -> bool {
    let Ok(report) = delivery else { return false };
    let any = report.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::InDoubt(_)));
    any && report.outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::InDoubt(_) | Outcome::Deferred(_)))
}

/// An attempt at a message with four recipients, three of which are still open.
///
/// # Panics
/// Never: the addresses in it are valid.
#[must_use]
pub fn attempt(content: &[u8], patience: Duration) -> Attempt {
    let recipient = |text: &str| Recipient::from(address(text));
    let message = Message {
        id: MessageId::generate(),
        received: SystemTime::now(),
        origin: Origin::default(),
        envelope: Envelope {
            reverse_path: ReversePath::Mailbox(address("sender@app.example")),
            recipients: ["first@a.example", "done@a.example", "refused@b.example", "Third+Tag@C.example"].map(recipient).to_vec(),
            body_type: BodyType::SevenBit,
            smtputf8: false,
            returned: None,
            envelope_id: None,
        },
        body: Body::Inline(content.to_vec().into()),
    };
    Attempt { message: Arc::new(message), recipients: [0, 2, 3].map(RecipientIndex).into(), number: 1, deadline: Instant::now() + patience }
}

/// A valid address.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn address(text: &str) -> Address {
    match Address::parse(text) {
        Ok(address) => address,
        Err(error) => panic!("{text}: {error}"),
    }
}

/// A message of about `size` octets, with a line that begins with a dot.
#[must_use]
pub fn content(size: usize) -> Vec<u8> {
    let mut content = b"From: <sender@app.example>\r\nTo: <first@a.example>\r\nSubject: conformance\r\n\r\n.dotted\r\n".to_vec();
    while content.len() < size {
        content.extend_from_slice(b"0123456789 abcdefghijklmnopqrstuvwxyz 0123456789\r\n");
    }
    content
}
