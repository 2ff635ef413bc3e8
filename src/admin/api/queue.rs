//! The queue: summary, lists, one message, actions on one and on many.

use std::str::FromStr as _;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::stream;
use postrider_providers::contract::{self, MessageId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::By;
use super::super::problem::{self, Asked, Problem};
use super::super::wire::queue::{
    ActionDone, ActionRequest, CountQuery, Job, JobAnswer, JobList, JobRequest, ListQuery, MessageDetail, QueueCount, QueuePage,
    QueueSummary, ShowQuery,
};
use super::super::{Office, convert};
use super::Problems;
use crate::queue::JobId;
use crate::spool::action::Done;
use crate::spool::filter::Filter;

/// How long a list is, if nobody says.
const USUAL_PAGE: usize = 50;

/// The longest list in one answer.
const LONGEST_PAGE: usize = 500;

/// How much of a header section is shown.
const MOST_HEADER: usize = 64 << 10;

/// How much of a body is shown; the whole can be exported.
const MOST_BODY: usize = 1 << 20;

/// How many messages a preview shows.
const EXAMPLES: usize = 5;

pub(super) fn routes() -> OpenApiRouter<Office> {
    OpenApiRouter::new()
        .routes(routes!(summary))
        .routes(routes!(list))
        .routes(routes!(count))
        .routes(routes!(show))
        .routes(routes!(export))
        .routes(routes!(act))
        .routes(routes!(jobs, start))
        .routes(routes!(job))
        .routes(routes!(cancel))
}

/// How much waits, and where.
#[utoipa::path(get, path = "/api/v1/queue", responses((status = 200, body = QueueSummary), Problems))]
async fn summary(State(office): State<Office>) -> Result<Json<QueueSummary>, Problem> {
    let summary = office.operations.summary().await?;
    Ok(Json(convert::summary(summary, office.clock.now())))
}

/// The messages that a filter means, part by part, in the order in which they were accepted.
#[utoipa::path(get, path = "/api/v1/queue/messages", params(ListQuery), responses((status = 200, body = QueuePage), Problems))]
async fn list(State(office): State<Office>, Asked(asked): Asked<ListQuery>) -> Result<Json<QueuePage>, Problem> {
    let filter = filter(&asked.filter)?;
    let after = asked.after.as_deref().map(id).transpose()?;
    let limit = asked.limit.unwrap_or(USUAL_PAGE);
    if !(1..=LONGEST_PAGE).contains(&limit) {
        return Err(Problem::bad(format!("`limit` is {limit}, expected 1 to {LONGEST_PAGE}")));
    }
    // One more than is shown says whether there is more.
    let mut found = office.operations.list(&filter, after, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.id.to_string());
    let messages = found.into_iter().map(|listed| convert::message(listed, convert::FEW_RECIPIENTS)).collect();
    Ok(Json(QueuePage { messages, next }))
}

/// How many messages a filter means.
#[utoipa::path(get, path = "/api/v1/queue/count", params(CountQuery), responses((status = 200, body = QueueCount), Problems))]
async fn count(State(office): State<Office>, Asked(asked): Asked<CountQuery>) -> Result<Json<QueueCount>, Problem> {
    let count = office.operations.count(&filter(&asked.filter)?).await?;
    Ok(Json(QueueCount { count }))
}

/// One message: what is known of it, its header, and its body on request.
#[utoipa::path(
    get, path = "/api/v1/queue/messages/{id}",
    params(("id" = String, Path, description = "32 hexadecimal digits."), ShowQuery),
    responses((status = 200, body = MessageDetail), Problems)
)]
async fn show(
    State(office): State<Office>,
    Path(text): Path<String>,
    Asked(asked): Asked<ShowQuery>,
) -> Result<Json<MessageDetail>, Problem> {
    let id = id(&text)?;
    let found = office.operations.find(id).await?.ok_or_else(|| gone(id))?;
    let most = MOST_HEADER + if asked.body { MOST_BODY } else { 0 };
    let start = found.stored.message.body.start(most).await.map_err(|error| unreadable(&error))?;
    let end = memchr::memmem::find(&start, b"\r\n\r\n").map_or(start.len(), |end| end + 2);
    let header = &start[..end.min(MOST_HEADER)];
    let rest = start.get(end + 2..).unwrap_or_default();
    let body = asked.body.then(|| String::from_utf8_lossy(&rest[..rest.len().min(MOST_BODY)]).into_owned());
    let shown = header.len() + 2 + body.as_ref().map_or(0, |_| rest.len().min(MOST_BODY));
    let cut = end > MOST_HEADER || (asked.body && (shown as u64) < found.stored.message.body.len());
    Ok(Json(MessageDetail {
        message: convert::message(found.listed, usize::MAX),
        waits_for: found.waits_for.map(|reason| reason.to_string()),
        header: String::from_utf8_lossy(header).into_owned(),
        body,
        cut,
    }))
}

/// One message as it is, for another mail program or another relay.
#[utoipa::path(
    get, path = "/api/v1/queue/messages/{id}/export",
    params(("id" = String, Path, description = "32 hexadecimal digits.")),
    responses((status = 200, content_type = "message/rfc822", body = String, description = "The message."), Problems)
)]
async fn export(State(office): State<Office>, Path(text): Path<String>) -> Result<Response, Problem> {
    let id = id(&text)?;
    let body = office.operations.export(id).await?.ok_or_else(|| gone(id))?;
    let length = body.len();
    let mut response = Response::new(stream(&body).await?);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("message/rfc822"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"{id}.eml\"")) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Does something to one message.
#[utoipa::path(
    post, path = "/api/v1/queue/messages/{id}/actions",
    params(("id" = String, Path, description = "32 hexadecimal digits.")),
    request_body = ActionRequest,
    responses((status = 200, body = ActionDone), Problems)
)]
async fn act(
    State(office): State<Office>,
    Path(text): Path<String>,
    By(by): By,
    problem::Json(request): problem::Json<ActionRequest>,
) -> Result<Json<ActionDone>, Problem> {
    let (id, name) = (id(&text)?, request.action);
    match office.operations.act(id, request.action()?, &by).await? {
        Done::Done => Ok(Json(ActionDone { id: id.to_string(), action: name })),
        Done::Busy => Err(Problem::new(StatusCode::CONFLICT, format!("a provider is being asked to take {id} right now"))
            .help("try again in a moment; it may be gone then")),
        Done::Gone => Err(gone(id)),
        Done::Refused(why) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why)),
    }
}

/// The jobs under way, and the last ones that ended.
#[utoipa::path(get, path = "/api/v1/queue/jobs", responses((status = 200, body = JobList), Problems))]
async fn jobs(State(office): State<Office>) -> Json<JobList> {
    Json(JobList { jobs: office.operations.jobs().into_iter().map(convert::job).collect() })
}

/// Does something to all messages that a filter means, in the background; or says how many that would be.
#[utoipa::path(
    post, path = "/api/v1/queue/jobs",
    request_body = JobRequest,
    responses((status = 200, body = JobAnswer, description = "What it would be."), (status = 202, body = JobAnswer, description = "It was started."), Problems)
)]
async fn start(
    State(office): State<Office>,
    By(by): By,
    problem::Json(request): problem::Json<JobRequest>,
) -> Result<(StatusCode, Json<JobAnswer>), Problem> {
    let filter = filter(&request.filter)?;
    let action = request.action.action()?;
    let count = office.operations.count(&filter).await?;
    if request.dry_run {
        let examples = office.operations.list(&filter, None, EXAMPLES).await?;
        let examples = examples.into_iter().map(|listed| convert::message(listed, convert::FEW_RECIPIENTS)).collect();
        return Ok((StatusCode::OK, Json(JobAnswer { count, examples, job: None })));
    }
    let expected = request.expected_count.ok_or_else(|| {
        Problem::bad("`expected_count` is missing").help("ask with \"dry_run\": true first, and give the count that it says")
    })?;
    if count.abs_diff(expected) > 10 + expected / 10 {
        return Err(Problem::new(StatusCode::CONFLICT, format!("the filter means {count} messages now, not {expected}; nothing was done"))
            .help("look at them again, and give the new count"));
    }
    let id = office.operations.start_job(filter, action, &by);
    let job = office.operations.job(id).map(convert::job);
    Ok((StatusCode::ACCEPTED, Json(JobAnswer { count, examples: Vec::new(), job })))
}

/// How far one job is.
#[utoipa::path(
    get, path = "/api/v1/queue/jobs/{id}",
    params(("id" = u64, Path, description = "Its number.")),
    responses((status = 200, body = Job), Problems)
)]
async fn job(State(office): State<Office>, Path(text): Path<String>) -> Result<Json<Job>, Problem> {
    let found = office.operations.job(job_id(&text)?);
    found.map(|progress| Json(convert::job(progress))).ok_or_else(|| no_job(&text))
}

/// Ends a job before its time. What is done stays done.
#[utoipa::path(
    post, path = "/api/v1/queue/jobs/{id}/cancel",
    params(("id" = u64, Path, description = "Its number.")),
    request_body = serde_json::Value,
    responses((status = 200, body = Job), Problems)
)]
async fn cancel(State(office): State<Office>, Path(text): Path<String>) -> Result<Json<Job>, Problem> {
    let id = job_id(&text)?;
    let was_running = office.operations.cancel_job(id);
    let progress = office.operations.job(id).ok_or_else(|| no_job(&text))?;
    if !was_running {
        return Err(Problem::new(StatusCode::CONFLICT, format!("job {id} is not under way: it is {}", progress.state.as_str())));
    }
    Ok(Json(convert::job(progress)))
}

fn filter(text: &str) -> Result<Filter, Problem> {
    Filter::from_str(text).map_err(|error| Problem::bad(error.to_string()).help("`postrider queue list --help` explains filters"))
}

fn id(text: &str) -> Result<MessageId, Problem> {
    text.parse().map_err(|error| Problem::bad(format!("\"{text}\" is no id: {error}")))
}

fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| Problem::bad(format!("\"{text}\" is no number of a job")))
}

fn no_job(text: &str) -> Problem {
    Problem::missing(format!("there is no job {text}, or it ended too long ago")).help("GET /api/v1/queue/jobs lists them")
}

fn gone(id: MessageId) -> Problem {
    Problem::missing(format!("message {id} is not in the queue")).help("what became of it is in the history: `postrider history trace ID`")
}

fn unreadable(error: &std::io::Error) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the message cannot be read: {error}"))
}

/// The bytes of a message piece by piece: it need not fit in memory.
async fn stream(body: &contract::Body) -> Result<Body, Problem> {
    let reader = body.open().await.map_err(|error| unreadable(&error))?;
    let pieces = stream::unfold(reader, |mut reader| async move {
        match reader.chunk().await {
            Ok(Some(chunk)) => Some((Ok(chunk), reader)),
            Ok(None) => None,
            Err(error) => Some((Err(error), reader)),
        }
    });
    Ok(Body::from_stream(pieces))
}
