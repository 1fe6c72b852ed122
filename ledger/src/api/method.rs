//! The table of methods.

use serde::Serialize;

/// A method: name, parameters, result, and what it does. `rpc_methods` returns the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Method {
    /// Name as called.
    pub name: &'static str,
    /// Parameters by name, optional ones with `?`.
    pub params: &'static str,
    /// Shape of the result.
    pub result: &'static str,
    /// What it does.
    pub about: &'static str,
}

macro_rules! methods {
    ($($constant:ident $name:literal ($params:literal) -> $result:literal, $about:literal;)*) => {
        $(#[doc = $about] pub const $constant: &str = $name;)*
        /// Every method of the interface.
        pub const METHODS: &[Method] =
            &[$(Method { name: $name, params: $params, result: $result, about: $about }),*];
    };
}

methods! {
    RPC_METHODS "rpc_methods" ("") -> "[Method]",
        "Lists all methods with their parameters and results.";
    CHAIN_STATUS "chain_status" ("") -> "Status",
        "Where this node stands: chain, height, roots, peers.";
    CHAIN_GENESIS "chain_genesis" ("") -> "object", "The genesis file of the chain.";
    CHAIN_HEAD "chain_head" ("height?: text") -> "Head",
        "Header and certificate of a final block, as canonical bytes; of the last one without a \
         height.";
    CHAIN_BLOCK "chain_block" ("height?: text, hash?: text, raw?: bool") -> "BlockInfo",
        "A final block by height or hash, the last one without either; with its canonical bytes if \
         raw.";
    CHAIN_VALIDATORS "chain_validators" ("") -> "[ValidatorInfo]",
        "The validators of the next height.";
    CHAIN_SUBSCRIBE "chain_subscribeBlocks" ("") -> "subscription of BlockSummary",
        "Pushes each block as it becomes final (WebSocket only).";
    CHAIN_UNSUBSCRIBE "chain_unsubscribeBlocks" ("subscription") -> "bool", "Ends a subscription.";
    TX_SUBMIT "tx_submit" ("transaction: hex") -> "Submitted",
        "Checks a signed transaction, keeps it and gossips it; says so if it is final already.";
    TX_GET "tx_get" ("id: text, wait_ms?: number, raw?: bool") -> "TxInfo",
        "What this node knows of a transaction; waits up to wait_ms (30,000) for it to become \
         final; with its canonical bytes if raw.";
    TX_PROOF "tx_proof" ("id: text") -> "TxProofInfo",
        "A final transaction with a proof that it is in a certified block.";
    TX_MEMPOOL "tx_mempool" ("limit?: number") -> "MempoolInfo",
        "Transactions that wait for a block, best fee first, 100 or up to 1,000.";
    ACCOUNT_GET "account_get" ("account: address or hex key") -> "AccountInfo",
        "Balance and nonce of an account.";
    ACCOUNT_PROOF "account_proof" ("account: address or hex key") -> "AccountProofInfo",
        "The account with a proof under a certified header.";
    SYNC_STATUS "sync_status" ("") -> "SyncStatus",
        "Progress of sync: how much is fetched and applied, from which peers, how fast, or why \
         nothing arrives.";
    NET_PEERS "net_peers" ("") -> "[PeerInfo]", "Connected peers.";
    NET_BANS "net_bans" ("") -> "[BanInfo]", "Peers that may not connect, why and until when.";
}
