//! Messages that are too large for one request: a draft made of fields, its attachments uploaded, then sent.
//!
//! Until the call to `send` nothing has been handed over, and a draft that comes to nothing is deleted. There
//! is no way to upload a message as it is (a draft from MIME has the limit of any request), so such
//! messages lose what fields cannot say, and signed ones are not taken.
//!
//! <https://learn.microsoft.com/graph/outlook-large-attachments>,
//! <https://learn.microsoft.com/graph/api/message-send>

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Url};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Graph;
use super::answer::{RULES, read, refusal};
use crate::contract::{Attempt, Diagnostic, Failure, Outcome, RecipientIndex};
use crate::http::api::{self, Answer, Part, Reading, Unanswered};
use crate::mime::fields::{Addressed, Attachment, Fields, Mailbox};
use crate::mime::signature::Signature;
use crate::oauth::Token;

/// What goes as one request; larger attachments are uploaded in pieces. In base64 it is just within the 4 MB
/// that a request may have.
const AT_ONCE: usize = 3_000_000;

/// How much is uploaded at once: below 4 MB, and a multiple of 320 KiB as Microsoft's storage wants it.
const PIECE: usize = 10 * 320 * 1024;

/// The draft itself, with its text.
const DRAFT: usize = 3_900_000;

/// A message may have this many header fields of its own, all of which begin with `X-`. More, and Graph
/// refuses it with `InvalidInternetMessageHeaderCollection`.
const HEADERS: usize = 5;

/// How long a draft that came to nothing may take to be deleted.
const CLEANUP: Duration = Duration::from_secs(5);

impl Graph {
    /// The message as a draft with uploads: what became of it, and the fields, which know what was lost.
    pub(super) async fn send_large(
        &self,
        attempt: &Attempt,
        recipients: &[RecipientIndex],
        mailbox: &str,
    ) -> Result<(Part, Fields), Failure> {
        self.refuse_signed(attempt).await?;
        let mut fields = Fields::of(attempt).await?;
        if fields.from.address.is_empty() {
            fields.from.address = mailbox.to_owned();
        }
        let part = self.upload(attempt, recipients, mailbox, &mut fields).await;
        Ok((part, fields))
    }

    async fn upload(&self, attempt: &Attempt, recipients: &[RecipientIndex], mailbox: &str, fields: &mut Fields) -> Part {
        let addressed = addressed(fields, attempt);
        let draft = Bytes::from(draft(fields, &addressed).to_string());
        if draft.len() > DRAFT {
            let text = "the text alone is too large for one request, and only attachments can be uploaded";
            return Part::Failed(Failure::Unsuitable(Diagnostic::during("messages", text)));
        }
        let (draft, attachments) = (&draft, &fields.attachments);
        let call = |token: Token| async move {
            let steps = Steps { graph: self, attempt, recipients, mailbox, token: &token };
            match steps.all(draft.clone(), attachments).await {
                Ok(part) | Err(part) => part,
            }
        };
        self.tokens.call(attempt.deadline, call).await
    }

    /// A signature covers the message as it is.
    async fn refuse_signed(&self, attempt: &Attempt) -> Result<(), Failure> {
        let bytes = attempt.message.body.bytes().await;
        let bytes = bytes
            .map_err(|error| Failure::Unavailable(Diagnostic::local(format!("the message cannot be read from the spool: {error}"))))?;
        if let Some(signature) = Signature::of(&bytes) {
            let text =
                format!("{}: what is larger than `mime_size` does not go through Graph as it is, and that breaks it", signature.name());
            return Err(Failure::Unsuitable(Diagnostic::local(text)));
        }
        Ok(())
    }
}

/// Everyone in one call, which needs nobody in To: who is not shown is in Bcc.
fn addressed(fields: &Fields, attempt: &Attempt) -> Addressed {
    let mut addressed = Addressed::default();
    let mut told = HashSet::new();
    for (_, recipient) in attempt.recipients() {
        let address = recipient.address.as_str();
        if !told.insert(address) {
            continue;
        }
        let shown = |list: &[Mailbox]| list.iter().find(|one| one.address.eq_ignore_ascii_case(address)).map(|one| one.name.clone());
        // The envelope's spelling counts: it is what was accepted.
        let named = |name| Mailbox { name, address: address.to_owned() };
        match (shown(&fields.to), shown(&fields.cc)) {
            (Some(name), _) => addressed.to.push(named(name)),
            (None, Some(name)) => addressed.cc.push(named(name)),
            (None, None) => addressed.bcc.push(named(None)),
        }
    }
    addressed
}

/// The draft. What cannot be said in it is lost.
/// <https://learn.microsoft.com/graph/api/resources/message>
fn draft(fields: &mut Fields, addressed: &Addressed) -> Value {
    let list = |mailboxes: &[Mailbox]| mailboxes.iter().map(mailbox).collect::<Vec<_>>();
    let (kind, content) = match (&fields.html, &fields.text) {
        (Some(html), text) => {
            fields.lost.extend(text.as_ref().map(|_| "text/plain: there is room for one text, which is the HTML".to_owned()));
            ("html", html.as_str())
        }
        (None, text) => ("text", text.as_deref().unwrap_or_default()),
    };
    let mut draft = json!({
        "subject": fields.subject,
        "body": { "contentType": kind, "content": content },
        "from": mailbox(&fields.from),
        "toRecipients": list(&addressed.to),
        "ccRecipients": list(&addressed.cc),
        "bccRecipients": list(&addressed.bcc),
    });
    if !fields.reply_to.is_empty() {
        draft["replyTo"] = list(&fields.reply_to).into();
    }
    if let Some(id) = fields.take_message_id() {
        draft["internetMessageId"] = id.into();
    }
    fields.keep_headers(|name| name.starts_with("x-"), "Graph takes only those that begin with X-");
    let beyond = fields.headers.split_off(fields.headers.len().min(HEADERS));
    fields.lost.extend(beyond.into_iter().map(|(name, _)| format!("{name}: Graph takes {HEADERS} header fields")));
    // An empty list is refused.
    if !fields.headers.is_empty() {
        draft["internetMessageHeaders"] = fields.headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    }
    draft
}

fn mailbox(mailbox: &Mailbox) -> Value {
    match &mailbox.name {
        Some(name) => json!({ "emailAddress": { "name": name, "address": mailbox.address } }),
        None => json!({ "emailAddress": { "address": mailbox.address } }),
    }
}

/// The calls for one message with one token.
struct Steps<'a> {
    graph: &'a Graph,
    attempt: &'a Attempt,
    recipients: &'a [RecipientIndex],
    mailbox: &'a str,
    token: &'a Token,
}

impl Steps<'_> {
    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.graph.request(method, self.mailbox, path, self.token, Some(self.attempt))
    }

    /// All of them; `Err` as soon as one of them fails. Either way it is what became of the message.
    async fn all(&self, draft: Bytes, attachments: &[Attachment]) -> Result<Part, Part> {
        let request = self.request(Method::POST, &["messages"]).header("Content-Type", "application/json").body(draft);
        let made = self.step("messages", request).await.map_err(needs_permission)?;
        let made = made.json();
        let id = made["id"].as_str().filter(|id| !id.is_empty()).ok_or_else(|| unreadable("messages"))?;
        let part = match self.fill(id, attachments).await {
            Ok(()) => Ok(self.send(id).await),
            Err(part) => Err(part),
        };
        let may_be_sent = |outcome: &Outcome| matches!(outcome, Outcome::Relayed(_) | Outcome::InDoubt(_));
        let is_done = matches!(&part, Ok(Part::Answered(outcomes)) if outcomes.iter().any(|(_, outcome)| may_be_sent(outcome)));
        if !is_done {
            let request = self.request(Method::DELETE, &["messages", id]);
            // One that stays is litter in a folder, no more.
            let until = self.attempt.deadline.min(Instant::now() + CLEANUP);
            let deleted = tokio::time::timeout_at(until, api::exchange("delete", request, self.graph.timeouts, None)).await;
            if !deleted.is_ok_and(|answer| answer.is_ok_and(|(answer, _)| (200..300).contains(&answer.status))) {
                tracing::debug!(message_id = %self.attempt.message.id, "a draft that came to nothing could not be deleted");
            }
        }
        part
    }

    async fn fill(&self, draft: &str, attachments: &[Attachment]) -> Result<(), Part> {
        for attachment in attachments {
            if attachment.content.len() <= AT_ONCE {
                let body = json!({
                    "@odata.type": "#microsoft.graph.fileAttachment",
                    "name": attachment.name,
                    "contentType": attachment.media_type,
                    "isInline": attachment.content_id.is_some(),
                    "contentId": attachment.content_id,
                    "contentBytes": STANDARD.encode(&attachment.content),
                });
                self.step("attachments", self.request(Method::POST, &["messages", draft, "attachments"]).json(&body)).await?;
            } else {
                self.upload(draft, attachment).await?;
            }
        }
        Ok(())
    }

    /// One attachment in pieces.
    async fn upload(&self, draft: &str, attachment: &Attachment) -> Result<(), Part> {
        let size = attachment.content.len();
        let item = json!({ "AttachmentItem": {
            "attachmentType": "file",
            "name": attachment.name,
            "size": size,
            "contentType": attachment.media_type,
            "isInline": attachment.content_id.is_some(),
            "contentId": attachment.content_id,
        } });
        let request = self.request(Method::POST, &["messages", draft, "attachments", "createUploadSession"]).json(&item);
        let session = self.step("createUploadSession", request).await?.json();
        let url = session["uploadUrl"].as_str().and_then(|url| Url::parse(url).ok());
        // Mail that goes to Graph encrypted is not uploaded in clear text.
        let url = url.filter(|url| url.scheme() == "https" || self.graph.endpoint.scheme() == "http");
        let url = url.ok_or_else(|| unreadable("createUploadSession"))?;
        let content = Bytes::copy_from_slice(&attachment.content);
        let mut start = 0;
        loop {
            let end = size.min(start + PIECE);
            // The URL is the credential here: a token beside it is refused.
            let request = self.graph.http.put(url.clone()).header("Content-Type", "application/octet-stream");
            let request = request.header("Content-Range", format!("bytes {start}-{}/{size}", end - 1)).body(content.slice(start..end));
            let answer = self.step("upload", request).await.map_err(session_lost)?;
            match next(&answer) {
                // 201, with which Graph says that it has all of it.
                None if end == size => return Ok(()),
                // It may have taken in a part of the piece only.
                Some(next) if start < next && next <= end && next < size => start = next,
                _ => return Err(out_of_step(end)),
            }
        }
    }

    /// A call after which nothing has been handed over, whatever its answer.
    async fn step(&self, during: &'static str, request: RequestBuilder) -> Result<Answer, Part> {
        // Whoever is not back by the deadline leaves the message in doubt, so there must be time to tidy up.
        let deadline = self.attempt.deadline.checked_sub(CLEANUP).unwrap_or(self.attempt.deadline);
        let exchanged = api::exchange(during, request, self.graph.timeouts, Some(deadline)).await;
        let (answer, _) = exchanged.map_err(|unanswered| Part::Failed(Failure::Unavailable(unanswered.diagnostic)))?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let refused = Reading::Refused(refusal(&answer).unwrap_or_default());
        let part = api::conclude(during, &answer, true, self.attempt, self.recipients, RULES, refused);
        Err(match part {
            Part::Answered(outcomes) => {
                let doubt = outcomes.iter().find_map(|(_, outcome)| match outcome {
                    Outcome::InDoubt(diagnostic) => Some(diagnostic.clone()),
                    _ => None,
                });
                doubt.map_or(Part::Answered(outcomes), |diagnostic| Part::Failed(Failure::Unavailable(diagnostic)))
            }
            nothing => nothing,
        })
    }

    /// The call that hands over. It has no body by which one could see how far it got, so silence is always
    /// doubt.
    async fn send(&self, draft: &str) -> Part {
        let request = self.request(Method::POST, &["messages", draft, "send"]).header("Content-Length", "0");
        match api::exchange("send", request, self.graph.timeouts, Some(self.attempt.deadline)).await {
            Ok((answer, _)) => api::conclude("send", &answer, true, self.attempt, self.recipients, RULES, read(&answer)),
            Err(Unanswered { diagnostic, .. }) => {
                Part::Answered(self.recipients.iter().map(|&index| (index, Outcome::InDoubt(diagnostic.clone()))).collect())
            }
        }
    }
}

/// A refusal of the draft is no refusal of the credential: smaller messages go out with the right to send.
fn needs_permission(part: Part) -> Part {
    match part {
        Part::Failed(Failure::Unauthorized(diagnostic)) if diagnostic.code == Some(403) => {
            Part::Failed(Failure::Unsuitable(diagnostic.advised(Some(
                "large messages are uploaded, for which the application needs the permission Mail.ReadWrite of Microsoft Graph beside Mail.Send; or lower `max_size` to `mime_size`, so that they go to another provider",
            ))))
        }
        other => other,
    }
}

/// Where the next piece of an upload begins; `None` when nothing is missing. For attachments it is a number,
/// where other uploads have a range.
/// <https://learn.microsoft.com/graph/api/resources/uploadsession>
fn next(answer: &Answer) -> Option<usize> {
    let json = answer.json();
    let range = json["nextExpectedRanges"][0].as_str().filter(|_| answer.status != 201)?;
    // What cannot be read is no place to go on from.
    Some(range.split('-').next().and_then(|start| start.trim().parse().ok()).unwrap_or(usize::MAX))
}

/// The URL of an upload is good for a while, and for this upload only: that it is not known any more, or
/// stands elsewhere, says nothing of the credential or the message.
fn session_lost(part: Part) -> Part {
    match part {
        Part::Failed(Failure::Unauthorized(diagnostic) | Failure::SenderRefused(diagnostic) | Failure::Unsuitable(diagnostic))
            if matches!(diagnostic.code, Some(401 | 403 | 404 | 409 | 410 | 416)) =>
        {
            Part::Failed(Failure::Unavailable(Diagnostic { advice: None, ..diagnostic }))
        }
        other => other,
    }
}

/// Sent as it stands, the message would lack a part of an attachment.
fn out_of_step(end: usize) -> Part {
    let text = format!("Graph was given an attachment up to octet {end}, and does not say that it has taken it");
    Part::Failed(Failure::Unavailable(Diagnostic::during("upload", text)))
}

fn unreadable(during: &'static str) -> Part {
    Part::Failed(Failure::Unavailable(Diagnostic::during(during, "an answer without what was asked for")))
}
