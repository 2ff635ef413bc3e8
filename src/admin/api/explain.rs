//! What would become of a message, and why: of one in the queue, of one that is imagined; or what became of it.

use axum::Json;
use axum::extract::{Path, State};
use postrider_providers::contract::{Address, Envelope, MessageId, Recipient, ReversePath};
use postrider_providers::mime::signature::Signature;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::problem::{self, Problem};
use super::super::wire::explain::{ExplainRequest, MessageExplanation, SignedWith};
use super::super::{Office, convert};
use super::{Problems, history};
use crate::dispatch::explain::Imagined;

/// The most recipients of an imagined message.
const MOST_RECIPIENTS: usize = 1000;

pub(super) fn routes() -> OpenApiRouter<Office> {
    OpenApiRouter::new().routes(routes!(explain)).routes(routes!(imagine))
}

/// What would become of a message of the queue now, and why; of one that has left it, what became of it.
/// Nothing is asked, taken or changed.
#[utoipa::path(
    get, path = "/api/v1/messages/{id}/explain",
    params(("id" = String, Path, description = "32 hexadecimal digits.")),
    responses((status = 200, body = MessageExplanation), Problems)
)]
async fn explain(State(office): State<Office>, Path(text): Path<String>) -> Result<Json<MessageExplanation>, Problem> {
    let id: MessageId = text.parse().map_err(|error| Problem::bad(format!("\"{text}\" is no id: {error}")))?;
    let queued = office.operations.explain(id).await?;
    let known = match history::known(&office, id, queued.is_some()).await {
        // What would become of it is the answer; a history that cannot be read now must not keep it back.
        Err(_) if queued.is_some() => None,
        known => known?,
    };
    let (past, events) = known.unzip();
    let explanation = match queued {
        Some((found, explanation)) => convert::explain::explanation(explanation, Some(&found.listed), office.clock),
        None => MessageExplanation {
            id: Some(id.to_string()),
            kind: "past".to_owned(),
            sender: past.as_ref().map(|past| past.sender.clone()).unwrap_or_default(),
            state: past.as_ref().map(|past| past.state.clone()),
            attempts: events.iter().flatten().filter_map(|event| event.attempt).max().unwrap_or(0),
            parts: Vec::new(),
            past: None,
            events: Vec::new(),
        },
    };
    Ok(Json(MessageExplanation { past, events: events.unwrap_or_default(), ..explanation }))
}

/// What would become of a message that was handed in now, and why. Nothing is asked, taken or changed.
#[utoipa::path(
    post, path = "/api/v1/explain",
    request_body = ExplainRequest,
    responses((status = 200, body = MessageExplanation), Problems)
)]
async fn imagine(
    State(office): State<Office>,
    problem::Json(request): problem::Json<ExplainRequest>,
) -> Result<Json<MessageExplanation>, Problem> {
    let explanation = office.operations.explain_imagined(imagined(request)?).await;
    Ok(Json(convert::explain::explanation(explanation, None, office.clock)))
}

fn imagined(request: ExplainRequest) -> Result<Imagined, Problem> {
    let ExplainRequest { from, to, application, client, size, signed } = request;
    if !(1..=MOST_RECIPIENTS).contains(&to.len()) {
        return Err(Problem::bad(format!("`to` has {} recipients, expected 1 to {MOST_RECIPIENTS}", to.len())));
    }
    let address = |name: &str, text: &str| {
        text.parse::<Address>().map_err(|error| Problem::bad(format!("`{name}` is \"{text}\", which is no address: {error}")))
    };
    let reverse_path = if from.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(address("from", &from)?) };
    let recipients = to.iter().map(|to| address("to", to).map(Recipient::from)).collect::<Result<Vec<_>, _>>()?;
    let client = client.map(|text| text.parse().map_err(|_| Problem::bad(format!("`client` is \"{text}\", which is no IP address"))));
    let smtputf8 = !from.is_ascii() || to.iter().any(|to| !to.is_ascii());
    let signature = signed.map(|signed| match signed {
        SignedWith::Smime => Signature::Smime,
        SignedWith::Pgp => Signature::PgpMime,
        SignedWith::Dkim => Signature::Dkim,
    });
    Ok(Imagined {
        envelope: Envelope { smtputf8, ..Envelope::new(reverse_path, recipients) },
        application: application.map(Into::into),
        client: client.transpose()?,
        size: size.unwrap_or(0),
        signature,
    })
}
