//! JSON-RPC 2.0: bytes in, text out. A request is one call, a notification or a batch. The module
//! `methods` runs the calls.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::RpcError;
use super::methods::{Caller, Methods};
use super::params::Listed;
use super::pool::{Held, Room};

/// Most calls in a batch.
pub(super) const BATCH_MAX: usize = 100;
/// Most bytes of an answer. The largest block, or the longest list of the mempool, takes about 9
/// MiB.
pub(super) const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// With fewer bytes left for the answer, no further call of a batch is begun, since its outcome
/// could not be reported.
const ROOM_MIN: usize = 1 << 10;
/// The id of an answer to a call without a valid id.
const NO_ID: &str = "null";

/// A call as it arrives. Its parts stay text until they are needed, so that a request does not grow
/// much in memory. The id is sent back byte for byte.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<&'a RawValue>,
    /// Missing in a notification, which is not answered.
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// Distinguishes an id of `null`, which is present, from a missing one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Answers a request: one call or a batch. `None` if all calls are notifications.
pub(super) async fn answer(methods: &Methods, caller: &Caller<'_>, request: &[u8]) -> Option<Held> {
    let refuse = |error: RpcError| {
        methods.count("", Some(&error));
        Some(Held::small(failure(NO_ID, &error)))
    };
    let text = match std::str::from_utf8(request) {
        Ok(text) => text,
        Err(error) => return refuse(RpcError::parse(error)),
    };
    let mut memory = Room::new(&methods.answers, caller.place);
    if !text.trim_start().starts_with('[') {
        let answer = answer_one(methods, caller, text, RESPONSE_BYTES_MAX, &mut memory).await;
        return answer.map(|answer| Held::new(answer, memory.into_holds()));
    }
    let calls = match serde_json::from_str::<Listed<'_, BATCH_MAX>>(text) {
        Ok(Listed(_, 0)) => return refuse(RpcError::invalid_request("a batch without calls")),
        Ok(Listed(calls, 1..=BATCH_MAX)) => calls,
        Ok(Listed(_, got)) => return refuse(RpcError::batch_too_large(got, BATCH_MAX)),
        Err(error) => return refuse(RpcError::parse(error)),
    };
    // Calls run in order, so that a batch sees its own submissions. A call whose answer does not
    // fit any more gets an error.
    let mut answers = String::new();
    for call in calls {
        let room = RESPONSE_BYTES_MAX.saturating_sub(answers.len());
        if let Some(answer) = answer_one(methods, caller, call.get(), room, &mut memory).await {
            answers.push(if answers.is_empty() { '[' } else { ',' });
            answers.push_str(&answer);
        }
    }
    (!answers.is_empty()).then(|| Held::new(answers + "]", memory.into_holds()))
}

async fn answer_one(
    methods: &Methods,
    caller: &Caller<'_>,
    text: &str,
    room: usize,
    memory: &mut Room<'_>,
) -> Option<String> {
    let (name, id, result) = match read(text) {
        Err((id, error)) => (Cow::Borrowed(""), Some(id), Err(error)),
        Ok((name, id, _)) if room < ROOM_MIN => {
            (name, id, Err(RpcError::no_room_in_batch(RESPONSE_BYTES_MAX)))
        }
        Ok((name, id, params)) => {
            let result = methods.call(caller, &name, params, room).await;
            (name, id, result)
        }
    };
    // A notification gets no answer, so its result is dropped.
    let Some(id) = id else {
        methods.count(&name, result.as_ref().err());
        return None;
    };
    let result =
        result.and_then(
            |result| if memory.take(result.len()) { Ok(result) } else { Err(RpcError::busy()) },
        );
    methods.count(&name, result.as_ref().err());
    Some(match result {
        Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
        Err(error) => failure(id, &error),
    })
}

/// Method, id and parameters of a call.
type Parts<'a> = (Cow<'a, str>, Option<&'a str>, Option<&'a RawValue>);

fn read(text: &str) -> Result<Parts<'_>, (&str, RpcError)> {
    if !text.trim_start().starts_with('{') {
        let json: Result<&RawValue, _> = serde_json::from_str(text);
        let error = json
            .map_or_else(RpcError::parse, |_| RpcError::invalid_request("a call is a JSON object"));
        return Err((NO_ID, error));
    }
    let call: Call<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => (NO_ID, RpcError::invalid_request(error)),
        _ => (NO_ID, RpcError::parse(error)),
    })?;
    let id = call.id.map(RawValue::get);
    if id.is_some_and(|id| id.starts_with(['{', '[', 't', 'f'])) {
        return Err((NO_ID, RpcError::invalid_request("id must be a number, a text or null")));
    }
    let invalid = |message: &str| (id.unwrap_or(NO_ID), RpcError::invalid_request(message));
    let version: Option<Cow<'_, str>> = call.jsonrpc.and_then(|version| word(version.get()));
    if version.as_deref() != Some("2.0") {
        return Err(invalid("jsonrpc must be \"2.0\""));
    }
    let method = call.method.ok_or_else(|| invalid("method is missing"))?;
    let method = word(method.get()).ok_or_else(|| invalid("method must be text"))?;
    Ok((method, id, call.params))
}

fn word(json: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Word<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str(json).ok().map(|Word(word)| word)
}

/// An error answer. `id` is JSON.
pub(super) fn failure(id: &str, error: &RpcError) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, json!(error))
}

/// The answer to a request that could not be read.
pub(super) fn refusal(error: &RpcError) -> String {
    failure(NO_ID, error)
}

/// The answer to a request that is refused before any call of it runs; `None` for a notification. A
/// batch gets a single error.
pub(super) fn turn_away(request: &[u8], error: &RpcError) -> Option<Held> {
    let text = std::str::from_utf8(request).unwrap_or_default();
    let id = match read(text) {
        Ok((_, id, _)) => id?,
        Err((id, _)) => id,
    };
    Some(Held::small(failure(id, error)))
}

/// A message of a subscription. `field` is `result`, or `error` when the subscription has ended.
pub(super) fn notification(
    method: &str,
    subscription: u32,
    field: &str,
    content: &Value,
) -> String {
    let params = json!({"subscription": subscription, field: content});
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}
