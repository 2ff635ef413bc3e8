//! One mail transaction on a connection: MAIL, RCPT, DATA, the content, and what each answer means.
//!
//! Invariant: until the first octet of the final dot has been written, nothing has been handed over
//! and whatever goes wrong is a [`Failure`]; from then on, only an answer of the host ends the doubt.

use std::fmt::Write as _;
use std::io;

use bytes::BytesMut;

use super::client::{Broken, Connection, Extensions, State, Step, Target, Wait};
use super::dot::DotStuffer;
use super::dsn;
use super::reply::Reply;
use super::rules::Rule;
use super::verdict::{Stage, Verdict, judge};
use crate::contract::{
    Attempt, BodyReader, BodyType, Delivery, Diagnostic, Failure, Outcome, Receipt, RecipientIndex, Report, ReversePath,
};

/// The dialogue ended before the host had taken in anything.
pub(super) struct Stale {
    /// The verdict, if nothing else is tried.
    pub(super) failure: Failure,
    /// The host hung up, rather than being silent. Had the connection been idle, a fresh one may be
    /// tried without any risk.
    pub(super) hung_up: bool,
}

/// What the host said to each RCPT.
struct Answers {
    accepted: Vec<RecipientIndex>,
    refused: Vec<Refusal>,
}

/// A recipient that the host refused, with its verdict and words.
struct Refusal {
    recipient: RecipientIndex,
    verdict: Verdict,
    diagnostic: Diagnostic,
}

/// How the content went.
enum Content {
    /// Up to and including the final dot.
    Sent,
    /// The host answered before it had all of it.
    Interrupted(Reply),
    /// The connection was lost; `in_doubt` says whether some of the final dot had gone.
    Lost { broken: Broken, in_doubt: bool },
    /// The spool did not give it.
    Unreadable(io::Error),
}

/// The end of data (RFC 5321 section 4.1.1.4), after the CRLF of the last line.
const FINAL_DOT: &[u8] = b".\r\n";

/// Hands `attempt` over on `connection`, and leaves it in a state that says whether it can be used
/// again.
pub(super) async fn transact(connection: &mut Connection, attempt: &Attempt, target: &Target) -> Result<Delivery, Stale> {
    let eight_bit = match is_eight_bit(&connection.extensions, attempt).await {
        Ok(eight_bit) => eight_bit,
        Err(error) => return Ok(Ok(unreadable(attempt, &error))),
    };
    let mail_line = match mail_command(&connection.extensions, attempt, eight_bit) {
        Ok(line) => line,
        Err(text) => return Ok(Err(Failure::Unsuitable(Diagnostic::during("MAIL", text)))),
    };
    let mut body = match attempt.message.body.open().await {
        Ok(body) => body,
        Err(error) => return Ok(Ok(unreadable(attempt, &error))),
    };
    let (rules, timeouts) = (target.rules, &target.timeouts);
    let wait = Wait { silence: timeouts.command.0, deadline: attempt.deadline };
    let mut dialogue = Dialogue { connection, wait, rules, pipelined: false };
    dialogue.reset().await?;
    dialogue.connection.state = State::Broken;

    let (extensions, utf8) = (&dialogue.connection.extensions, dsn::is_utf8(attempt));
    let recipients: Vec<(RecipientIndex, String)> =
        attempt.recipients().map(|(index, recipient)| (index, dsn::rcpt_command(extensions, recipient, utf8))).collect();
    dialogue.pipeline(&mail_line, &recipients).await.map_err(|broken| Stale::lost(broken, "MAIL"))?;

    let mail = dialogue.ask(&mail_line).await.map_err(|broken| Stale::lost(broken, "MAIL"))?;
    if !mail.is_positive() {
        let (verdict, diagnostic) = judge(rules, Stage::Mail, "MAIL", &mail);
        if mail.code == 421 {
            let failure = verdict.failure(diagnostic.clone()).unwrap_or(Failure::Unavailable(diagnostic));
            return Err(Stale { failure, hung_up: true });
        }
        dialogue.abandon(recipients.len()).await;
        return Ok(match verdict.failure(diagnostic.clone()) {
            Some(failure) => Err(failure),
            None => Ok(Report::uniform(&attempt.recipients, &verdict.outcome(diagnostic))),
        });
    }

    let answers = match dialogue.recipients(&recipients).await {
        Ok(answers) => answers,
        Err(failure) => return Ok(Err(failure)),
    };
    if answers.accepted.is_empty() {
        dialogue.abandon(0).await;
        return Ok(all_refused(answers.refused));
    }
    let data = match dialogue.ask("DATA").await {
        Ok(data) => data,
        Err(broken) => return Ok(Err(broken.unavailable("DATA"))),
    };
    if data.code != 354 {
        dialogue.connection.state = after_refusal(&data);
        return Ok(message_refused(rules, Stage::Data, "DATA", &data, answers));
    }
    Ok(hand_over(connection, attempt, &mut body, target, answers).await)
}

/// Sends the content to the recipients that were accepted, and tells what became of it.
async fn hand_over(connection: &mut Connection, attempt: &Attempt, body: &mut BodyReader, target: &Target, answers: Answers) -> Delivery {
    let (rules, timeouts) = (target.rules, &target.timeouts);
    let data_wait = Wait { silence: timeouts.data.0, deadline: attempt.deadline };
    match send_content(connection, body, data_wait).await {
        Content::Sent => {}
        // A host that says yes before the end has a mind of its own about where that was.
        Content::Interrupted(reply) if reply.code < 400 => return Ok(answers.report(&Outcome::InDoubt(reply.diagnostic("content")))),
        Content::Interrupted(reply) => return message_refused(rules, Stage::Message, "content", &reply, answers),
        Content::Lost { broken, in_doubt: false } => return Err(broken.unavailable("content")),
        Content::Lost { broken, in_doubt: true } => return Ok(answers.report(&Outcome::InDoubt(broken.diagnostic("final dot")))),
        Content::Unreadable(error) => return Ok(unreadable(attempt, &error)),
    }
    let final_wait = Wait { silence: timeouts.r#final.0, deadline: attempt.deadline };
    let reply = match connection.reply(final_wait).await {
        Ok(reply) => reply,
        Err(broken) => return Ok(answers.report(&Outcome::InDoubt(broken.diagnostic("final dot")))),
    };
    match reply.code {
        200..300 => {
            connection.state = State::Ready;
            connection.messages += 1;
            let dsn = connection.extensions.dsn;
            Ok(answers.report(&Outcome::Relayed(Receipt { dsn, ..reply.receipt() })))
        }
        400..600 => {
            connection.state = after_refusal(&reply);
            message_refused(rules, Stage::Message, "final dot", &reply, answers)
        }
        // 3yz here is no answer at all.
        _ => Ok(answers.report(&Outcome::InDoubt(reply.diagnostic("final dot")))),
    }
}

/// A host that closes, or answers nonsense, is not talked to again.
fn after_refusal(reply: &Reply) -> State {
    if reply.code != 421 && (400..600).contains(&reply.code) { State::NeedsReset } else { State::Broken }
}

/// The commands of the envelope, one by one or all in one write.
struct Dialogue<'a> {
    connection: &'a mut Connection,
    wait: Wait,
    rules: &'static [&'static [Rule]],
    /// The commands have been written already, and only answers are outstanding.
    pipelined: bool,
}

impl Dialogue<'_> {
    /// RSET, where the last transaction left something behind.
    async fn reset(&mut self) -> Result<(), Stale> {
        if self.connection.state == State::Ready {
            return Ok(());
        }
        self.connection.state = State::Broken;
        match self.connection.command("RSET", self.wait).await {
            Ok(reply) if reply.is_positive() => Ok(()),
            Ok(reply) => Err(Stale { failure: Failure::Unavailable(reply.diagnostic("RSET")), hung_up: true }),
            Err(broken) => Err(Stale::lost(broken, "RSET")),
        }
    }

    /// Writes the whole envelope at once, where the host allows it (RFC 2920).
    async fn pipeline(&mut self, mail: &str, recipients: &[(RecipientIndex, String)]) -> Result<(), Broken> {
        if !self.connection.extensions.pipelining {
            return Ok(());
        }
        let mut group = format!("{mail}\r\n");
        for (_, line) in recipients {
            group.push_str(line);
            group.push_str("\r\n");
        }
        group.push_str("DATA\r\n");
        self.pipelined = true;
        match self.connection.send(group.as_bytes(), self.wait).await {
            Err(Broken::Silent(silence)) => Err(Broken::Silent(silence)),
            // A host that says 421 and hangs up: its words come with the first reply.
            _ => Ok(()),
        }
    }

    /// The answer to one command.
    async fn ask(&mut self, line: &str) -> Result<Reply, Broken> {
        if self.pipelined { self.connection.reply(self.wait).await } else { self.connection.command(line, self.wait).await }
    }

    /// RCPT for each, up to a failure that is about all.
    async fn recipients(&mut self, recipients: &[(RecipientIndex, String)]) -> Result<Answers, Failure> {
        let mut answers = Answers { accepted: Vec::with_capacity(recipients.len()), refused: Vec::new() };
        for (recipient, line) in recipients {
            let reply = self.ask(line).await.map_err(|broken| broken.unavailable("RCPT"))?;
            if reply.is_positive() {
                answers.accepted.push(*recipient);
                continue;
            }
            let (verdict, diagnostic) = judge(self.rules, Stage::Rcpt, "RCPT", &reply);
            if reply.code == 421 {
                return Err(verdict.failure(diagnostic.clone()).unwrap_or(Failure::Unavailable(diagnostic)));
            }
            answers.refused.push(Refusal { recipient: *recipient, verdict, diagnostic });
        }
        Ok(answers)
    }

    /// Ends a transaction in which nobody will receive anything, after `pending` answers to RCPT.
    async fn abandon(&mut self, pending: usize) {
        if self.pipelined {
            for _ in 0..pending {
                if self.ask("").await.is_err() {
                    return;
                }
            }
            match self.ask("").await {
                // RFC 2920 section 3.1: DATA may be taken though no recipient was. A dot alone ends
                // it, and goes to nobody.
                Ok(reply) if reply.code == 354 => {
                    let sent = self.connection.send(FINAL_DOT, self.wait).await;
                    if self.connection.reply_after(sent, self.wait).await.is_err() {
                        return;
                    }
                }
                Ok(reply) if reply.code == 421 => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        self.connection.state = State::NeedsReset;
    }
}

/// Whether the content is to be declared as 8-bit (RFC 6152). Many clients send such content and do
/// not say so. Where it can be declared it is, because a strict host refuses it otherwise; where it
/// cannot, it goes out as it came in. Many others declare whatever they send: what is ASCII needs no
/// declaration, and goes to a host that knows none.
async fn is_eight_bit(extensions: &Extensions, attempt: &Attempt) -> io::Result<bool> {
    match (attempt.message.envelope.body_type, extensions.eight_bit_mime) {
        (BodyType::EightBitMime, true) => Ok(true),
        (BodyType::SevenBit, false) => Ok(false),
        _ => Ok(!attempt.message.body.is_ascii().await?),
    }
}

/// The MAIL command, or why this host cannot carry the message.
fn mail_command(extensions: &Extensions, attempt: &Attempt, eight_bit: bool) -> Result<String, String> {
    let envelope = &attempt.message.envelope;
    let mut line = format!("MAIL FROM:<{}>", envelope.reverse_path.as_str());
    if let Some(limit) = extensions.size {
        let size = attempt.message.body.len();
        if limit > 0 && size > limit {
            return Err(format!("the message has {size} octets, and this host takes {limit} (SIZE)"));
        }
        // Writing to a String cannot fail.
        let _ = write!(line, " SIZE={size}");
    }
    if eight_bit && extensions.eight_bit_mime {
        line.push_str(" BODY=8BITMIME");
    } else if eight_bit && envelope.reverse_path != ReversePath::Null {
        // A notification goes out as it is: refused, it would be lost, and nobody would hear what became
        // of the message.
        return Err("the message is 8-bit and declared as such (8BITMIME), which this host does not offer".to_owned());
    }
    dsn::add_to_mail(&mut line, extensions, envelope);
    let mut addresses = envelope.reverse_path.address().into_iter().chain(attempt.recipients().map(|(_, recipient)| &recipient.address));
    let foreign = addresses.find(|address| !address.is_ascii());
    if envelope.smtputf8 || foreign.is_some() {
        if !extensions.smtputf8 {
            let why =
                foreign.map_or_else(|| "the message is declared as SMTPUTF8".to_owned(), |address| format!("<{address}> needs SMTPUTF8"));
            return Err(format!("{why}, which this host does not offer"));
        }
        line.push_str(" SMTPUTF8");
    }
    Ok(line)
}

/// Writes the content and the final dot, and listens for a host that speaks up before the end.
async fn send_content(connection: &mut Connection, body: &mut BodyReader, wait: Wait) -> Content {
    /// Up to this size the last piece and the final dot go in one write: for most messages, all.
    const JOINED: usize = 128 * 1024;
    let mut stuffer = DotStuffer::new();
    let mut end = BytesMut::new();
    let mut piece = match body.chunk().await {
        Ok(piece) => piece,
        Err(error) => return Content::Unreadable(error),
    };
    while let Some(bytes) = piece {
        piece = match body.chunk().await {
            Ok(piece) => piece,
            Err(error) => return Content::Unreadable(error),
        };
        let bytes = stuffer.stuff(bytes);
        if piece.is_none() && bytes.len() <= JOINED {
            end.extend_from_slice(&bytes);
        } else if let Err(ended) = write_watching(connection, &bytes, bytes.len(), wait).await {
            return ended;
        }
    }
    end.extend_from_slice(stuffer.line_end());
    let content = end.len();
    end.extend_from_slice(FINAL_DOT);
    match write_watching(connection, &end, content, wait).await {
        Err(ended) => ended,
        Ok(()) => flush(connection, wait).await,
    }
}

/// Writes `bytes`, of which all past `content` belong to the final dot.
async fn write_watching(connection: &mut Connection, bytes: &[u8], content: usize, wait: Wait) -> Result<(), Content> {
    let mut taken = 0;
    while taken < bytes.len() {
        let in_doubt = taken > content;
        // It may have spoken already, in one packet with 354, and closed: nothing more would arrive.
        let step = if connection.has_spoken() && !in_doubt { Ok(Step::Arrived) } else { connection.step(&bytes[taken..], wait).await };
        let ended = match step {
            Ok(Step::Took(more)) if more > 0 => {
                taken += more;
                continue;
            }
            // With part of the final dot on its way this may be the answer to it.
            Ok(Step::Arrived) if in_doubt => continue,
            Ok(Step::Arrived) => Ok(()),
            Ok(Step::Took(_) | Step::Closed) => Err(Broken::Closed),
            Err(broken) => Err(broken),
        };
        return Err(match connection.reply_after(ended, wait).await {
            Ok(reply) => Content::Interrupted(reply),
            Err(broken) => Content::Lost { broken, in_doubt },
        });
    }
    Ok(())
}

/// Pushes out what a TLS layer still holds. What fails here shows when the answer is read, which
/// may have arrived all the same.
async fn flush(connection: &mut Connection, wait: Wait) -> Content {
    loop {
        match connection.step(&[], wait).await {
            Ok(Step::Arrived) => {}
            Err(broken @ Broken::Silent(_)) => return Content::Lost { broken, in_doubt: true },
            _ => return Content::Sent,
        }
    }
}

/// Nobody was accepted. Where all were refused for one reason that is about us, that is the verdict.
fn all_refused(refused: Vec<Refusal>) -> Delivery {
    if let Some(first) = refused.first()
        && refused.iter().all(|refusal| refusal.verdict == first.verdict)
        && let Some(failure) = first.verdict.failure(first.diagnostic.clone())
    {
        return Err(failure);
    }
    Ok(Report::new(refused.into_iter().map(Refusal::into_outcome).collect()))
}

/// The message was refused for all who had been accepted.
fn message_refused(rules: &[&[Rule]], stage: Stage, during: &'static str, reply: &Reply, answers: Answers) -> Delivery {
    let (verdict, diagnostic) = judge(rules, stage, during, reply);
    // With recipients refused on their own, only a report can say both.
    if (answers.refused.is_empty() || reply.code == 421)
        && let Some(failure) = verdict.failure(diagnostic.clone())
    {
        return Err(failure);
    }
    Ok(answers.report(&verdict.outcome(diagnostic)))
}

/// The spool's trouble, which is no fault of the host.
fn unreadable(attempt: &Attempt, error: &io::Error) -> Report {
    let diagnostic = Diagnostic::local(format!("the message cannot be read from the spool: {error}"));
    Report::uniform(&attempt.recipients, &Outcome::Deferred(diagnostic))
}

impl Stale {
    fn lost(broken: Broken, during: &'static str) -> Self {
        let hung_up = !matches!(broken, Broken::Silent(_));
        Self { failure: broken.unavailable(during), hung_up }
    }
}

impl Answers {
    /// `outcome` for the accepted, and to the others their own.
    fn report(self, outcome: &Outcome) -> Report {
        let mut report = Report::uniform(&self.accepted, outcome);
        report.outcomes.extend(self.refused.into_iter().map(Refusal::into_outcome));
        report.outcomes.sort_by_key(|(index, _)| *index);
        report
    }
}

impl Refusal {
    fn into_outcome(self) -> (RecipientIndex, Outcome) {
        (self.recipient, self.verdict.outcome(self.diagnostic))
    }
}
