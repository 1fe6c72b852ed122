//! JSON-RPC 2.0: bytes in, text out. One call, a notification or a batch; what the methods do is elsewhere.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::RpcError;
use super::methods::{Caller, Methods};

/// Most calls of a batch.
pub(super) const BATCH_MAX: usize = 100;
/// Most bytes of an answer. A full block of the largest size and the longest list of the mempool take about 9 MiB.
pub(super) const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// A call as it arrives. Parameters stay text until a method reads them, so that no request grows much in memory.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    /// Missing in a notification, which is not answered.
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// What a faulty call is answered by, if it can be found.
#[derive(Deserialize)]
struct Identified {
    #[serde(default)]
    id: Value,
}

/// An id of `null` is there, a missing one is not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Answers a request: one call or a batch of them. Nothing for notifications.
pub(super) async fn answer(methods: &Methods, caller: &Caller<'_>, request: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(request) {
        Ok(text) => text,
        Err(error) => return Some(failure(&Value::Null, &RpcError::parse(error))),
    };
    if !text.trim_start().starts_with('[') {
        return answer_one(methods, caller, text, RESPONSE_BYTES_MAX).await;
    }
    let calls: Vec<&RawValue> = match serde_json::from_str(text) {
        Ok(calls) => calls,
        Err(error) => return Some(failure(&Value::Null, &RpcError::parse(error))),
    };
    let refusal = match calls.len() {
        0 => Some(RpcError::invalid_request("a batch without calls")),
        1..=BATCH_MAX => None,
        got => Some(RpcError::batch_too_large(got, BATCH_MAX)),
    };
    if let Some(error) = refusal {
        return Some(failure(&Value::Null, &error));
    }
    // In order, so that a batch sees its own submissions; what does not fit any more is answered by an error.
    let mut answers = String::new();
    for call in calls {
        let room = RESPONSE_BYTES_MAX.saturating_sub(answers.len());
        if let Some(answer) = answer_one(methods, caller, call.get(), room).await {
            answers.push(if answers.is_empty() { '[' } else { ',' });
            answers.push_str(&answer);
        }
    }
    (!answers.is_empty()).then(|| answers + "]")
}

async fn answer_one(methods: &Methods, caller: &Caller<'_>, text: &str, room: usize) -> Option<String> {
    let call: Call<'_> = match serde_json::from_str(text) {
        Ok(call) => call,
        Err(error) if error.classify() == Category::Data => {
            let id = serde_json::from_str(text).map_or(Value::Null, |call: Identified| call.id);
            return Some(failure(&scalar(id), &RpcError::invalid_request(error)));
        }
        Err(error) => return Some(failure(&Value::Null, &RpcError::parse(error))),
    };
    let result = match &call.id {
        _ if call.jsonrpc != "2.0" => Err(RpcError::invalid_request("jsonrpc must be \"2.0\"")),
        Some(Value::Object(_) | Value::Array(_) | Value::Bool(_)) => {
            Err(RpcError::invalid_request("id must be a number, a text or null"))
        }
        _ => methods.call(caller, &call.method, call.params).await,
    };
    let id = scalar(call.id?);
    Some(match result {
        Ok(result) if result.get().len() <= room => success(&id, &result),
        Ok(_) => failure(&id, &RpcError::response_too_large(RESPONSE_BYTES_MAX)),
        Err(error) => failure(&id, &error),
    })
}

/// The id, if it is one that may be repeated.
fn scalar(id: Value) -> Value {
    match id {
        Value::Number(_) | Value::String(_) => id,
        _ => Value::Null,
    }
}

fn success(id: &Value, result: &RawValue) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

pub(super) fn failure(id: &Value, error: &RpcError) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()
}

/// What a subscription pushes: `result`, or `error` when it has ended.
pub(super) fn notification(method: &str, subscription: u32, field: &str, content: &Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": {"subscription": subscription, field: content}}).to_string()
}
