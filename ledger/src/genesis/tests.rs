#![allow(clippy::unwrap_used)]

use super::*;

pub(crate) fn local() -> Genesis {
    let account = |name: &&str| GenesisAccount {
        name: (*name).to_owned(),
        account: template_key(name).unwrap().public(),
        balance: Amount(1_000_000_000_000_000),
    };
    let validator = SigningKey::from_seed(&template_seed("validator")).public();
    Genesis {
        format: FORMAT,
        network: LOCAL_NETWORK.to_owned(),
        address_prefix: "crn".to_owned(),
        coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(1_767_225_600_000),
        accounts: TEMPLATE_ACCOUNTS.iter().map(account).collect(),
        validators: vec![GenesisValidator {
            name: "template".to_owned(),
            key: validator,
            payout: validator,
            power: VotingPower(10),
        }],
        limits: Limits {
            block_bytes_max: 1 << 20,
            clock_drift_ms: 1_000,
            segment_bytes: 1 << 20,
            chunk_bytes: 64 << 10,
            ..Limits::default()
        },
    }
}

#[test]
fn the_template_is_valid_and_frozen() {
    let text = include_bytes!("../../../genesis.json");
    let genesis = Genesis::from_json(text).unwrap();
    assert_eq!(genesis, local());
    assert_eq!(genesis.to_json().as_bytes(), text);
    assert_eq!(
        genesis.chain_id().to_string(),
        "93748f73d7cb6233ec9fa09bf4f2b7824c7ec6aa44cd9dcece0e28418cb0d858"
    );
}

#[test]
fn every_problem_is_named_with_its_path() {
    let mut value: serde_json::Value = serde_json::from_str(&local().to_json()).unwrap();
    value["typo"] = 1.into();
    value["accounts"][0]["balance"] = "5".into();
    value["accounts"][1]["address"] = value["accounts"][2]["address"].clone();
    value["accounts"][3]["address"] = "btc1qqq".into();
    value["validators"][0]["power"] = 10.into();
    value["limits"]["chunk_bytes"] = "-1".into();
    let error = Genesis::from_json(value.to_string().as_bytes()).unwrap_err();
    let paths: Vec<&str> = error.problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "accounts[0].balance",
            "accounts[3].address",
            "validators[0].power",
            "limits.chunk_bytes",
            "typo"
        ]
    );
}

#[test]
fn each_rule_across_fields_is_checked() {
    type Change = fn(&mut Genesis);
    let rows: [(Change, &str); 13] = [
        (|g| g.format = 3, "format"),
        (|g| g.network = "Main Net".to_owned(), "network"),
        (|g| g.address_prefix = String::new(), "address_prefix"),
        (|g| g.coin.decimals = 19, "coin.decimals"),
        (|g| g.limits.block_bytes_max = 1 << 30, "limits.block_bytes_max"),
        (|g| g.limits.segment_bytes = 512 << 10, "limits.block_bytes_max"),
        (|g| g.limits.empty_block_interval_ms = 10, "limits.empty_block_interval_ms"),
        (|g| g.accounts[1].account = g.accounts[0].account, "accounts[1].address"),
        (|g| g.accounts[1].account = PublicKey([0; 32]), "accounts[1].address"),
        (|g| g.accounts[3].balance = Amount(u64::MAX), "accounts[3].balance"),
        (|g| g.validators.clear(), "validators"),
        (|g| g.validators[0].power = VotingPower(VOTING_POWER_MAX + 1), "validators[0].power"),
        (|g| g.network = "mainnet".to_owned(), "accounts[0].address"),
    ];
    assert_eq!(local().problems(), []);
    for (change, path) in rows {
        let mut genesis = local();
        change(&mut genesis);
        let problems = genesis.problems();
        assert!(problems.iter().any(|problem| problem.path == path), "{path}: {problems:?}");
        if path != "address_prefix" {
            assert!(Genesis::from_json(genesis.to_json().as_bytes()).is_err(), "{path}");
        }
    }
}

#[test]
fn a_genesis_of_another_format_is_refused_by_name_and_for_nothing_else() {
    let refused = |format: u32| {
        let mut value: serde_json::Value = serde_json::from_str(&local().to_json()).unwrap();
        value["format"] = format.into();
        value["limits"] = serde_json::json!({ "of another format": 1 });
        Genesis::from_json(value.to_string().as_bytes()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(1),
        "1 problem in genesis:\n  format: 1, expected 2: made by cairn 0.1: use cairn 0.1 for \
         this network, or start a new network with `genesis new`"
    );
    assert_eq!(refused(3), "1 problem in genesis:\n  format: 3, this program knows 2: upgrade it");
    assert_eq!(Genesis { format: 1, ..local() }.problems().len(), 1);
}

#[test]
fn a_byte_order_mark_before_the_text_is_accepted_once() {
    let text = local().to_json();
    let marked = |marks: usize| [&b"\xef\xbb\xbf".repeat(marks)[..], text.as_bytes()].concat();
    assert_eq!(Genesis::from_json(&marked(1)), Ok(local()));
    assert!(Genesis::from_json(&marked(2)).is_err());
}

/// About half of all 32-byte strings are not points of the curve, and nobody could spend the money
/// of such an account. A validator's key must not have a torsion component either, since libraries
/// differ on the signatures of such a key.
#[test]
fn keys_that_nobody_can_use_are_refused_everywhere() {
    let mut y = [0; 32];
    y[0] = 2;
    let no_point = PublicKey(y);
    let torsion: Hash =
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d".parse().unwrap();
    let torsion = PublicKey(torsion.0);
    let problems = |change: &dyn Fn(&mut Genesis)| {
        let mut genesis = local();
        change(&mut genesis);
        genesis.problems().into_iter().map(|problem| problem.to_string()).collect::<Vec<_>>()
    };
    let lost = "is not a point of the curve, nobody can sign for it";
    for (change, path) in [
        (
            &(|g: &mut Genesis| g.accounts[1].account = no_point) as &dyn Fn(&mut Genesis),
            "accounts[1].address",
        ),
        (&|g| g.validators[0].payout = no_point, "validators[0].payout"),
        (&|g| g.validators[0].key = no_point, "validators[0].key"),
    ] {
        assert_eq!(problems(change), [format!("{path}: public key {no_point} {lost}")]);
    }
    assert_eq!(problems(&|g| g.accounts[1].account = torsion), Vec::<String>::new());
    assert_eq!(problems(&|g| g.validators[0].payout = torsion), Vec::<String>::new());
    assert_eq!(
        problems(&|g| g.validators[0].key = torsion),
        [format!(
            "validators[0].key: public key {torsion} has a torsion component, libraries differ on \
             its signatures"
        )]
    );
}

#[test]
fn text_that_is_not_a_genesis_is_an_error() {
    for text in ["", "[]", "null", "{", "{}", "\"x\""] {
        assert!(Genesis::from_json(text.as_bytes()).is_err(), "{text}");
    }
}
