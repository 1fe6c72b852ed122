//! Errors as callers read them: a code, a message, a stable reason for programs and a hint for
//! people.

use std::fmt::Display;
use std::time::Duration;

use ledger::api::{ErrorData, Method, REASON_NOT_KEPT, code};
use ledger::chain::TransactionError;
use protocol::live::mempool::AdmitError;
use serde::Serialize;

use crate::submission::SubmitError;

/// Codes of JSON-RPC 2.0 itself.
mod standard {
    pub(super) const PARSE: i32 = -32_700;
    pub(super) const INVALID_REQUEST: i32 = -32_600;
    pub(super) const METHOD_NOT_FOUND: i32 = -32_601;
    pub(super) const INVALID_PARAMS: i32 = -32_602;
    pub(super) const INTERNAL: i32 = -32_603;
}

/// The reason of a call whose answer does not fit.
const TOO_LARGE: &str = "response_too_large";

/// The `error` member of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RpcError {
    pub(super) code: i32,
    pub(super) message: String,
    pub(super) data: ErrorData,
}

impl RpcError {
    fn new(code: i32, reason: &str, message: impl Display, hint: impl Into<String>) -> Self {
        let (reason, hint) = (reason.to_owned(), hint.into());
        let data = ErrorData { reason, hint, retry_after_ms: None, holders: None };
        Self { code, message: message.to_string(), data }
    }

    pub(super) fn parse(error: impl Display) -> Self {
        let hint = "send one JSON-RPC 2.0 call, or an array of calls";
        Self::new(standard::PARSE, "parse_error", format!("the request is not JSON: {error}"), hint)
    }

    pub(super) fn invalid_request(message: impl Display) -> Self {
        let hint =
            r#"a call looks like {"jsonrpc":"2.0","id":1,"method":"chain_status","params":{}}"#;
        Self::new(standard::INVALID_REQUEST, "invalid_request", message, hint)
    }

    pub(super) fn batch_too_large(got: usize, max: usize) -> Self {
        let message = format!("a batch of {got} calls, expected at most {max}");
        Self::new(
            standard::INVALID_REQUEST,
            "batch_too_large",
            message,
            "split it into several batches",
        )
    }

    pub(super) fn body_too_large(max: usize) -> Self {
        let message = format!("the request is larger than {max} bytes");
        Self::new(
            standard::INVALID_REQUEST,
            "body_too_large",
            message,
            "split it into several requests",
        )
    }

    pub(super) fn response_too_large(max: usize) -> Self {
        let message = format!("the answer would be larger than {max} bytes");
        Self::new(code::UNAVAILABLE, TOO_LARGE, message, "ask for less at once, in smaller batches")
    }

    /// Whether the answer did not fit.
    pub(super) fn is_too_large(&self) -> bool {
        self.data.reason == TOO_LARGE
    }

    pub(super) fn no_room_in_batch(max: usize) -> Self {
        let message = format!(
            "the earlier answers of this batch have {max} bytes already; this call was not made"
        );
        Self::new(code::UNAVAILABLE, TOO_LARGE, message, "ask for less at once, in smaller batches")
    }

    pub(super) fn body_too_slow(max: Duration) -> Self {
        let message = format!("the request did not arrive within {} s", max.as_secs());
        Self::new(
            standard::INVALID_REQUEST,
            "body_too_slow",
            message,
            "send smaller requests on this connection",
        )
    }

    /// The caller's account is empty.
    pub(super) fn over_budget(retry_after: Duration) -> Self {
        let ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX).saturating_add(1);
        let message = "the budget of this IP address is spent";
        let mut error =
            Self::new(code::OVER_BUDGET, "busy", message, format!("try again in {ms} ms"));
        error.data.retry_after_ms = Some(ms);
        error
    }

    /// For the moment there is no memory for the request or its answer, no place for calls or for
    /// another WebSocket, or no room in the queue of a WebSocket's calls.
    pub(super) fn busy() -> Self {
        let message = "too many large requests and answers are in progress";
        let mut error = Self::new(
            code::UNAVAILABLE,
            "busy",
            message,
            "try again in a second, or ask for less at once",
        );
        error.data.retry_after_ms = Some(1_000);
        error
    }

    pub(super) fn unknown_method(name: &str) -> Self {
        let message = format!("unknown method {:?}", name.chars().take(80).collect::<String>());
        Self::new(
            standard::METHOD_NOT_FOUND,
            "unknown_method",
            message,
            "rpc_methods lists all methods",
        )
    }

    pub(super) fn websocket_only(method: &str) -> Self {
        let message = format!("{method} works over WebSocket only");
        Self::new(
            standard::INVALID_REQUEST,
            "websocket_only",
            message,
            "connect to the same address with ws://",
        )
    }

    pub(super) fn too_many_subscriptions(max: usize) -> Self {
        let message =
            format!("this connection has {max} subscriptions, which is the most it may have");
        Self::new(
            code::UNAVAILABLE,
            "too_many_subscriptions",
            message,
            "end one with chain_unsubscribeBlocks",
        )
    }

    pub(super) fn lagged(missed: u64) -> Self {
        let message = format!(
            "the connection is too slow, {missed} blocks were not sent; the subscription has ended"
        );
        Self::new(
            code::UNAVAILABLE,
            "lagged",
            message,
            "subscribe again and fetch missed blocks with chain_block",
        )
    }

    pub(super) fn invalid_params(method: &Method, message: impl Display) -> Self {
        let hint = match method.params {
            "" => format!("{} takes no parameters", method.name),
            params => format!("{} takes: {params}", method.name),
        };
        Self::new(standard::INVALID_PARAMS, "invalid_params", message, hint)
    }

    pub(super) fn not_found(message: impl Display, hint: &str) -> Self {
        Self::new(code::NOT_FOUND, "not_found", message, hint)
    }

    pub(super) fn no_block(name: impl Display) -> Self {
        let hint =
            "chain_status tells the height of the last final block; this node may also be syncing";
        Self::not_found(format!("block {name} is not known here"), hint)
    }

    /// What is asked for is, or may be, in a part of the chain that this node does not keep.
    pub(super) fn not_kept(what: impl Display) -> Self {
        let message = format!("{what} is not in the part of the chain that this node keeps");
        let hint = "ask a node that keeps the whole chain, or one of data.holders";
        let mut error = Self::new(code::NOT_KEPT, REASON_NOT_KEPT, message, hint);
        error.data.holders = Some(Box::default());
        error
    }

    /// No block is final yet, so there is no header and no certificate.
    pub(super) fn no_block_yet() -> Self {
        Self::not_found(
            "no block is final yet",
            "wait for the first block; chain_genesis shows the start of the chain",
        )
    }

    pub(super) fn unavailable() -> Self {
        Self::new(
            code::UNAVAILABLE,
            "busy",
            "the node is busy or stopping",
            "try again in a moment",
        )
    }

    /// A fault of our disk or code. The details are logged and not shown to callers.
    pub(super) fn internal(error: impl Display) -> Self {
        tracing::error!("a call failed: {error}");
        Self::new(
            standard::INTERNAL,
            "internal",
            "the node could not answer",
            "its operator finds the cause in the log",
        )
    }

    /// The bytes are not a transaction.
    pub(super) fn malformed_transaction(error: impl Display) -> Self {
        let hint = "send the canonical bytes of one signed transaction in hexadecimal";
        Self::new(code::REJECTED, "malformed", error, hint)
    }

    /// The memo would show the key of a private file to everybody. This is no rule of the chain, so
    /// the same transaction of a peer is not refused.
    pub(super) fn key_in_memo() -> Self {
        let text = "the memo has a link with the key of a private file, which everybody could read";
        let hint = "leave out \"#\" and the key, and sign again";
        Self::new(code::REJECTED, "key_in_memo", text, hint)
    }
}

impl From<SubmitError> for RpcError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(error) => error.into(),
            SubmitError::Unavailable => Self::unavailable(),
        }
    }
}

impl From<AdmitError> for RpcError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Rejected(error) => rejected(&error),
            AdmitError::Underpriced { least } => {
                let hint = format!(
                    "wait for the other one, or sign again with a fee of at least {least} pebbles"
                );
                Self::new(code::REJECTED, "underpriced", error, hint)
            }
            AdmitError::ExpiresSoon { least, .. } => {
                let hint = format!(
                    "sign again with an expires_at of at least {least}; is this machine's clock \
                     right?"
                );
                Self::new(code::REJECTED, "expires_soon", error, hint)
            }
            AdmitError::Full => {
                let hint = "wait for a block, or offer a better fee per byte";
                Self::new(code::MEMPOOL_FULL, "mempool_full", error, hint)
            }
        }
    }
}

fn rejected(error: &TransactionError) -> RpcError {
    let (reason, hint) = match error {
        TransactionError::Signature => (
            "signature",
            "sign with the sender's key for this chain; chain_status has its chain_id".to_owned(),
        ),
        TransactionError::Outputs(_) => ("outputs", "split the transfer into several".to_owned()),
        TransactionError::Memo(_) => {
            ("memo_too_long", "shorten the memo, or put a hash of it there".to_owned())
        }
        TransactionError::ZeroAmount(_) => {
            ("zero_amount", "leave that output out, or pay it something".to_owned())
        }
        TransactionError::Recipient(_) => {
            ("recipient", "ask the recipient for an address of a real key".to_owned())
        }
        TransactionError::Overflow => ("overflow", "send smaller amounts".to_owned()),
        TransactionError::NonceUsed { .. } => (
            "nonce_used",
            "another transaction used this nonce; sign again with the pending_nonce of account_get"
                .to_owned(),
        ),
        TransactionError::NonceAhead { .. } => (
            "nonce_ahead",
            "submit the account's earlier transactions first, or sign with the next nonce"
                .to_owned(),
        ),
        TransactionError::Balance { .. } => {
            ("balance", "send less, or wait for incoming money".to_owned())
        }
        TransactionError::Fee { least, .. } => {
            ("fee_too_low", format!("sign again with a fee of {least} pebbles"))
        }
        TransactionError::Expired { .. } => (
            "expired",
            "sign again with a later expires_at; is this machine's clock right?".to_owned(),
        ),
        TransactionError::ExpiryTooFar { latest, .. } => {
            ("expiry_too_far", format!("sign again with an expires_at of at most {latest}"))
        }
    };
    RpcError::new(code::REJECTED, reason, error, hint)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ledger::hash::Hash;
    use ledger::signature::{KeyError, PublicKey};
    use ledger::units::{Amount, Nonce, Timestamp};

    use super::*;

    /// Programs match on the reason, so each refusal has its own.
    #[test]
    fn each_refusal_has_its_own_reason_and_a_hint() {
        let (got, next) = (Nonce(1), Nonce(2));
        let errors = [
            TransactionError::Signature,
            TransactionError::Outputs(0),
            TransactionError::Memo(300),
            TransactionError::ZeroAmount(1),
            TransactionError::Recipient(KeyError::SmallOrder(PublicKey(Hash::ZERO.0))),
            TransactionError::Overflow,
            TransactionError::NonceUsed { got, next },
            TransactionError::NonceAhead { got: next, next: got },
            TransactionError::Balance { balance: Amount(1), needed: Amount(2) },
            TransactionError::Fee { got: Amount(1), least: Amount(4_711) },
            TransactionError::Expired { expires_at: Timestamp(1), time: Timestamp(2) },
            TransactionError::ExpiryTooFar { expires_at: Timestamp(9), latest: Timestamp(4_711) },
        ];
        let refusals = errors.map(|error| RpcError::from(AdmitError::Rejected(error)));
        let soon = AdmitError::ExpiresSoon { expires_at: Timestamp(9), least: Timestamp(4_711) };
        let others = [
            AdmitError::Underpriced { least: 4_711 }.into(),
            soon.into(),
            AdmitError::Full.into(),
            SubmitError::Unavailable,
        ];
        let all: Vec<RpcError> = refusals.into_iter().chain(others.map(RpcError::from)).collect();
        let reasons: BTreeSet<&str> = all.iter().map(|error| error.data.reason.as_str()).collect();
        assert_eq!(reasons.len(), all.len());
        for error in &all {
            assert!(!error.message.is_empty() && !error.data.hint.is_empty(), "{error:?}");
        }
        let with_number = all.iter().filter(|error| error.data.hint.contains("4711")).count();
        assert_eq!(with_number, 4, "a hint says which fee or time would do");
        let codes = all.iter().map(|error| error.code);
        let expected =
            [vec![code::REJECTED; 14], vec![code::MEMPOOL_FULL, code::UNAVAILABLE]].concat();
        assert!(codes.eq(expected));
    }
}
