//! Parameters of a call, by name or in the order in which the method lists them. Errors are written
//! for people.

use std::borrow::Cow;
use std::fmt;

use ledger::api::Method;
use ledger::hash::{BlockHash, TxId};
use serde::Deserialize;
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::RpcError;

/// Most parameters that are kept, more than any method takes. Further ones are only counted or
/// dropped.
const PARAMS_MAX: usize = 8;

/// A type of parameters.
pub(super) trait Param: Sized {
    /// What is expected, in words.
    const EXPECTED: &'static str;

    /// The value of this JSON; `None` if it is not of this type.
    fn read(json: &str) -> Option<Self>;
}

fn from_json<T: DeserializeOwned>(json: &str) -> Option<T> {
    serde_json::from_str(json).ok()
}

impl Param for String {
    const EXPECTED: &'static str = "text";

    fn read(json: &str) -> Option<Self> {
        from_json(json)
    }
}

impl Param for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(json: &str) -> Option<Self> {
        from_json(json)
    }
}

impl Param for u32 {
    const EXPECTED: &'static str = "a number from 0 to 4294967295";

    fn read(json: &str) -> Option<Self> {
        from_json(json)
    }
}

impl Param for u64 {
    const EXPECTED: &'static str = "a number from 0 to 18446744073709551615";

    fn read(json: &str) -> Option<Self> {
        from_json(json)
    }
}

/// A 64-bit number as decimal text.
pub(super) struct Decimal(pub(super) u64);

impl Param for Decimal {
    const EXPECTED: &'static str = "a decimal number as text, such as \"7\"";

    fn read(json: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Number(#[serde(with = "ledger::api::decimal")] u64);
        from_json::<Number>(json).map(|number| Self(number.0))
    }
}

impl Param for BlockHash {
    const EXPECTED: &'static str = "text of 64 hexadecimal digits";

    fn read(json: &str) -> Option<Self> {
        from_json::<String>(json)?.parse().ok()
    }
}

impl Param for TxId {
    const EXPECTED: &'static str = "text of 64 hexadecimal digits";

    fn read(json: &str) -> Option<Self> {
        from_json::<String>(json)?.parse().ok()
    }
}

/// Bytes as hexadecimal text.
pub(super) struct HexBytes(pub(super) Vec<u8>);

impl Param for HexBytes {
    const EXPECTED: &'static str = "text of hexadecimal digits, two for each byte";

    fn read(json: &str) -> Option<Self> {
        let text: Cow<'_, str> = serde_json::from_str(json).ok()?;
        hex::decode(&*text).ok().map(Self)
    }
}

/// A call of a known method, with its parameters still as JSON.
pub(super) struct Called<'a> {
    pub(super) method: &'static Method,
    /// Names and values. A value of `null` counts as missing.
    given: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// Most bytes of the result.
    pub(super) room: usize,
}

impl<'a> Called<'a> {
    /// Reads the names of the parameters. Each value is parsed on demand.
    pub(super) fn new(
        method: &'static Method,
        params: Option<&'a RawValue>,
        room: usize,
    ) -> Result<Self, RpcError> {
        let invalid = |message: String| RpcError::invalid_params(method, message);
        let text = params.map_or("{}", RawValue::get);
        let names: Vec<&str> = names(method).collect();
        let given = match text.as_bytes().first() {
            Some(b'[') => {
                let listed = serde_json::from_str::<Listed<'_, PARAMS_MAX>>(text);
                let Listed(values, count) = listed.map_err(|error| invalid(error.to_string()))?;
                if count > names.len() {
                    let most = match names.len() {
                        0 => "none".to_owned(),
                        most => format!("at most {most}"),
                    };
                    let given = if count == 1 { "parameter is" } else { "parameters are" };
                    return Err(invalid(format!("{count} {given} given, expected {most}")));
                }
                names.iter().map(|name| Cow::Borrowed(*name)).zip(values).collect()
            }
            Some(b'{') => {
                let Named(given) =
                    serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
                for (at, (name, _)) in given.iter().enumerate() {
                    if !names.contains(&&**name) {
                        let name: String = name.chars().take(80).collect();
                        return Err(invalid(format!("there is no parameter {name}")));
                    }
                    if given.iter().take(at).any(|(earlier, _)| earlier == name) {
                        return Err(invalid(format!("the parameter {name} is given twice")));
                    }
                }
                given
            }
            _ if text == "null" => Vec::new(),
            _ => return Err(invalid("parameters are an object or an array".to_owned())),
        };
        Ok(Self { method, given, room })
    }

    /// A parameter that must be there.
    pub(super) fn required<T: Param>(&self, name: &str) -> Result<T, RpcError> {
        self.optional(name)?.ok_or_else(|| self.invalid(format!("the parameter {name} is missing")))
    }

    /// A parameter that may be missing.
    pub(super) fn optional<T: Param>(&self, name: &str) -> Result<Option<T>, RpcError> {
        let value =
            self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.get());
        let Some(value) = value.filter(|value| *value != "null") else { return Ok(None) };
        let unfit = || {
            let shown: String = value.chars().take(80).collect();
            self.invalid(format!("{name} is {shown}, expected {}", T::EXPECTED))
        };
        T::read(value).ok_or_else(unfit).map(Some)
    }

    pub(super) fn invalid(&self, message: impl fmt::Display) -> RpcError {
        RpcError::invalid_params(self.method, message)
    }
}

/// Names of a method's parameters, out of a list such as `height?: text, hash?: text`.
fn names(method: &Method) -> impl Iterator<Item = &'static str> {
    let name = |text: &'static str| text.split([':', '?']).next().unwrap_or(text);
    method.params.split(", ").map(name).filter(|name| !name.is_empty())
}

/// The first values of an array, and the number of all values. Further values take no memory.
pub(super) struct Listed<'a, const MAX: usize>(pub(super) Vec<&'a RawValue>, pub(super) usize);

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Listed<'a, MAX> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for Values<MAX> {
            type Value = (Vec<&'de RawValue>, usize);

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let (mut values, mut count) = (Vec::new(), 0);
                while let Some(value) = seq.next_element()? {
                    count += 1;
                    if values.len() < MAX {
                        values.push(value);
                    }
                }
                Ok((values, count))
            }
        }
        deserializer.deserialize_seq(Values::<MAX>).map(|(values, count)| Self(values, count))
    }
}

/// The first members of an object.
struct Named<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Named<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                    if members.len() < PARAMS_MAX {
                        members.push((name, value));
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Self)
    }
}
