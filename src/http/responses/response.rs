//! Small responses, and problems as JSON.

use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::ResponseBody;

/// A response to a request.
pub(crate) type HttpResponse = Response<ResponseBody>;

pub(crate) const JSON: &str = "application/json";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const YAML: &str = "application/yaml";
pub(crate) const HTML: &str = "text/html; charset=utf-8";

/// A problem, as JSON.
#[derive(Serialize)]
struct ProblemBody<'a> {
    error: &'a str,
    /// The lines of `error`, where there may be several.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<&'a [String]>,
}

pub(crate) fn ok(content_type: &'static str, body: impl Into<Bytes>) -> HttpResponse {
    response(StatusCode::OK, Some(content_type), body)
}

/// JSON with a newline at its end, so that a terminal's prompt starts on a new line.
pub(crate) fn encode_json(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut json = serde_json::to_vec(value)?;
    json.push(b'\n');
    Ok(json)
}

pub(crate) fn json(value: &impl Serialize) -> HttpResponse {
    match encode_json(value) {
        Ok(body) => ok(JSON, body),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be encode_json"),
    }
}

pub(crate) fn problem(status: StatusCode, error: &str) -> HttpResponse {
    let body = encode_json(&ProblemBody { error, problems: None }).unwrap_or_default();
    response(status, Some(JSON), body)
}

/// One or several problems, as text and as a list.
pub(crate) fn problems(status: StatusCode, problems: &[String]) -> HttpResponse {
    let body = encode_json(&ProblemBody { error: &problems.join("\n"), problems: Some(problems) }).unwrap_or_default();
    response(status, Some(JSON), body)
}

pub(crate) fn method_not_allowed(allowed: &'static str, error: &str) -> HttpResponse {
    allow(problem(StatusCode::METHOD_NOT_ALLOWED, error), allowed)
}

/// Adds the header that lists the methods of a path.
pub(crate) fn allow(mut response: HttpResponse, allowed: &'static str) -> HttpResponse {
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Any response. One without content has no content type.
pub(crate) fn response(status: StatusCode, content_type: Option<&'static str>, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = Response::new(ResponseBody::whole(body));
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}
