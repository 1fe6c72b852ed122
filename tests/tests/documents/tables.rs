//! A small interpreter, which takes the tables out of the documents and reads bytes by them. It
//! uses no type of this project.

use std::collections::{BTreeMap, BTreeSet};

const DOCUMENTS: [&str; 5] = [
    include_str!("../../../docs/protocol/bytes.md"),
    include_str!("../../../docs/protocol/consensus.md"),
    include_str!("../../../docs/protocol/files.md"),
    include_str!("../../../docs/protocol/network.md"),
    include_str!("../../../docs/protocol/sync.md"),
];

/// A type, as the tables name it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    /// An integer, with its length in bytes.
    Number(usize),
    Bool,
    /// This many bytes.
    Fixed(usize),
    Bytes,
    Text,
    Rest,
    List(Box<Type>),
    Option(Box<Type>),
    /// The type that a table defines.
    Table(String),
}

impl Type {
    fn parse(text: &str) -> Self {
        let inner = |text| Box::new(Self::parse(text));
        if let Some(item) = text.strip_prefix("list of ") {
            return Self::List(inner(item));
        }
        if let Some(value) = text.strip_prefix("option of ") {
            return Self::Option(inner(value));
        }
        if let Some(count) = text.strip_prefix("bytes[") {
            return Self::Fixed(count.strip_suffix(']').unwrap().parse().unwrap());
        }
        match text {
            "u8" => Self::Number(1),
            "u16" => Self::Number(2),
            "u32" => Self::Number(4),
            "u64" => Self::Number(8),
            "bool" => Self::Bool,
            "bytes" => Self::Bytes,
            "text" => Self::Text,
            "rest" => Self::Rest,
            name => {
                assert!(name.starts_with(char::is_uppercase), "`{name}` is no type of a table");
                Self::Table(name.to_owned())
            }
        }
    }
}

/// Name and type.
pub(crate) type Field = (String, Type);

#[derive(Clone, Debug)]
pub(crate) enum Table {
    Fields(Vec<Field>),
    /// The length of a variant's number in bytes, and each variant's name and fields by its number.
    Variants(usize, BTreeMap<u64, (String, Vec<Field>)>),
}

pub(crate) type Tables = BTreeMap<String, Table>;

/// All tables of a document that define a type.
fn tables(document: &str, tables: &mut Tables) {
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        let mut rows = Vec::new();
        if !line.starts_with('|') {
            continue;
        }
        while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
            rows.push(cells(row));
        }
        let head = cells(line);
        let Some((name, width)) = head[0].strip_prefix('`').and_then(|name| name.split_once('`'))
        else {
            continue;
        };
        let rows = &rows[1..];
        let table = match (head[1].as_str(), width.trim()) {
            ("Type", "") => Table::Fields(
                rows.iter().map(|row| (unquoted(&row[0]), Type::parse(&row[1]))).collect(),
            ),
            ("Name", width) if head[2] == "Fields" => {
                let Type::Number(width) = Type::parse(width) else { panic!("{line}") };
                let variant = |row: &Vec<String>| {
                    let fields = row[2].split_terminator(", ").map(|field| {
                        let field = unquoted(field);
                        let (name, kind) = field.split_once(": ").unwrap();
                        (name.to_owned(), Type::parse(kind))
                    });
                    (row[0].parse().unwrap(), (row[1].clone(), fields.collect()))
                };
                Table::Variants(width, rows.iter().map(variant).collect())
            }
            _ => continue,
        };
        let earlier = tables.insert(name.to_owned(), table);
        assert!(earlier.is_none(), "two tables define {name}");
    }
}

fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|').trim_end_matches('|');
    row.split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn unquoted(cell: &str) -> String {
    cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).unwrap().to_owned()
}

pub(crate) fn documented() -> Tables {
    let mut found = Tables::new();
    for document in DOCUMENTS {
        tables(document, &mut found);
    }
    assert!(found.len() > 30, "{} tables", found.len());
    found
}

/// Bytes that are being read by the tables.
pub(crate) struct Reader<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) bytes: &'a [u8],
    /// The values that were read, by their path.
    pub(crate) values: BTreeMap<String, String>,
    /// Tables and variants that were used.
    pub(crate) used: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, path: &str) -> Result<&'a [u8], String> {
        let taken = self.bytes.split_at_checked(count);
        let (taken, rest) = taken.ok_or_else(|| format!("{path}: the bytes end early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn number(&mut self, width: usize, path: &str) -> Result<u64, String> {
        let bytes = self.take(width, path)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The number of items that follow. Each item takes at least one byte.
    fn length(&mut self, path: &str) -> Result<usize, String> {
        let length = usize::try_from(self.number(8, path)?).unwrap();
        let fits = length <= self.bytes.len();
        fits.then_some(length).ok_or_else(|| format!("{path}: {length} items do not fit"))
    }

    fn flag(&mut self, path: &str) -> Result<bool, String> {
        match self.number(1, path)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{path}: {other} is neither 0 nor 1")),
        }
    }

    fn fields(&mut self, fields: &[Field], path: &str) -> Result<(), String> {
        fields.iter().try_for_each(|(name, kind)| self.read(kind, &join(path, name)))
    }

    pub(crate) fn read(&mut self, kind: &Type, path: &str) -> Result<(), String> {
        let value = match kind {
            Type::Number(width) => self.number(*width, path)?.to_string(),
            Type::Bool => self.flag(path)?.to_string(),
            Type::Fixed(count) => hex::encode(self.take(*count, path)?),
            Type::Rest => hex::encode(self.take(self.bytes.len(), path)?),
            Type::Bytes => {
                let length = self.length(path)?;
                hex::encode(self.take(length, path)?)
            }
            Type::Text => {
                let length = self.length(path)?;
                let text = str::from_utf8(self.take(length, path)?);
                text.map_err(|error| format!("{path}: {error}"))?.to_owned()
            }
            Type::List(item) => {
                let length = self.length(path)?;
                for index in 0..length {
                    self.read(item, &join(path, &index.to_string()))?;
                }
                format!("{length} items")
            }
            Type::Option(value) => {
                if self.flag(path)? {
                    return self.read(value, path);
                }
                "none".to_owned()
            }
            Type::Table(name) => {
                let tables = self.tables;
                let table = tables.get(name).ok_or_else(|| format!("no table defines {name}"))?;
                self.used.insert(name.clone());
                match table {
                    Table::Fields(fields) => return self.fields(fields, path),
                    Table::Variants(width, variants) => {
                        let number = self.number(*width, path)?;
                        let variant = variants.get(&number);
                        let (variant, fields) =
                            variant.ok_or_else(|| format!("{path}: {name} has no {number}"))?;
                        self.used.insert(format!("{name} {number}"));
                        self.fields(fields, path)?;
                        variant.clone()
                    }
                }
            }
        };
        self.values.insert(path.to_owned(), value);
        Ok(())
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
