//! Which file of a crate imports which.
//!
//! A file imports what its `use` lines and paths name in another file of its crate. A name that a
//! file only re-exports leads to the file that it comes from. What a submodule takes from a module
//! that contains it does not count, since the two belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::code::code_of;
use super::files;

/// The names of modules, from the root of the crate.
type Place = Vec<String>;

/// The files of a crate, and what each imports.
#[derive(Debug)]
pub struct Crate {
    files: BTreeMap<Place, File>,
    /// Top-level modules, in the groups that blank lines in `lib.rs` make.
    groups: Vec<Vec<String>>,
}

/// Where the imports of a crate lead in the list of modules in `lib.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each module imports only modules that stand above it: the list begins with the
    /// foundations.
    Upward,
    /// Each module imports only modules that stand below it: the list begins with what the crate
    /// is for.
    Downward,
}

#[derive(Debug, Default)]
struct File {
    /// Names that `use` lines bind, with their origins.
    names: BTreeMap<String, Place>,
    /// Every path in the file that leads to a file of the crate.
    paths: Vec<Place>,
}

impl Crate {
    /// Reads the sources of a crate below this folder.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn read(sources: &str) -> Self {
        Self::of(
            &files(sources, ".rs")
                .into_iter()
                .map(|(path, text)| {
                    (path[sources.len()..].trim_start_matches('/').to_owned(), text)
                })
                .collect::<Vec<_>>(),
        )
    }

    /// The crate of these files, with paths from the folder of `lib.rs`.
    fn of(sources: &[(String, String)]) -> Self {
        let mut codes = BTreeMap::new();
        let mut groups = Vec::new();
        for (path, text) in sources {
            let mut place: Place =
                path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            if ["main", "bin"].contains(&place[0].as_str()) {
                continue;
            }
            if place == ["lib"] {
                groups = modules(text);
            }
            if ["mod", "lib"].contains(&place[place.len() - 1].as_str()) {
                place.pop();
            }
            codes.insert(place, code_of(text));
        }
        let places: BTreeSet<Place> = codes.keys().cloned().collect();
        let file = |(place, code): (Place, String)| {
            let file = File::of(&place, &tokens(&code), &places);
            (place, file)
        };
        Self { files: codes.into_iter().map(file).collect(), groups }
    }

    /// The file that a path leads to, through all re-exports.
    fn origin(&self, path: &[String]) -> Place {
        let mut path = path.to_vec();
        let mut seen = BTreeSet::new();
        loop {
            let is_file = |length: &usize| self.files.contains_key(&path[..*length]);
            let length = (0..=path.len()).rev().find(is_file).unwrap_or(0);
            let (file, rest) = path.split_at(length);
            let handed_on = rest.first().and_then(|name| self.files.get(file)?.names.get(name));
            match handed_on {
                Some(origin) if seen.insert(path.clone()) => {
                    path = [&origin[..], &rest[1..]].concat();
                }
                _ => return file.to_vec(),
            }
        }
    }

    /// The files that each file imports, without the file itself and the modules that contain it.
    fn imports(&self) -> BTreeMap<&Place, BTreeSet<Place>> {
        let of = |(place, file): (&Place, &File)| -> BTreeSet<Place> {
            let origins = file.paths.iter().map(|path| self.origin(path));
            origins.filter(|origin| !place.starts_with(origin)).collect()
        };
        self.files.iter().map(|(place, file)| (place, of((place, file)))).collect()
    }

    /// Each circle of files that import each other, and each circle of rooms. A room is a module
    /// with all its submodules, seen from the other modules of its folder. Files of tests belong to
    /// no room, since they may use everything.
    #[must_use]
    pub fn circles(&self) -> Vec<String> {
        let imports = self.imports();
        let mut found = Vec::new();
        let mut rooms: BTreeMap<Place, BTreeSet<Place>> = BTreeMap::new();
        for (from, to) in &imports {
            for to in to.iter().filter(|to| !is_test(from) && !is_test(to)) {
                let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
                if shared < from.len() && shared < to.len() {
                    let room = |place: &[String]| place[..=shared].to_vec();
                    rooms.entry(room(from)).or_default().insert(room(to));
                }
            }
        }
        let files = imports.into_iter().map(|(from, to)| (from.clone(), to)).collect();
        for (kind, graph) in [("files", &files), ("rooms", &rooms)] {
            for circle in circles(graph) {
                let mut line = format!("{kind}:");
                for place in circle {
                    let _ = write!(line, " {} ->", place.join("::"));
                }
                found.push(line.trim_end_matches(" ->").to_owned());
            }
        }
        found
    }

    /// Each import between top-level modules that runs against the order of `lib.rs`. Modules of
    /// one group have no order among themselves.
    #[must_use]
    pub fn against(&self, order: Order) -> Vec<String> {
        let group = |name: &String| self.groups.iter().position(|group| group.contains(name));
        let mut found = Vec::new();
        for (from, to) in self.imports() {
            for to in to.iter().filter(|to| !is_test(from) && !to.is_empty() && !from.is_empty()) {
                let (from_group, to_group) = (group(&from[0]), group(&to[0]));
                let runs_against = match order {
                    Order::Upward => from_group < to_group,
                    Order::Downward => from_group > to_group,
                };
                if runs_against {
                    found.push(format!("{} imports {}", from.join("::"), to.join("::")));
                }
            }
        }
        found
    }
}

fn is_test(place: &[String]) -> bool {
    place.iter().any(|name| name == "tests" || name.ends_with("_tests"))
}

/// The modules that a `lib.rs` declares, in the groups that blank lines make.
fn modules(lib: &str) -> Vec<Vec<String>> {
    let mut groups = vec![Vec::new()];
    for line in lib.lines() {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        if let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            groups.last_mut().expect("there is a first group").push(name.to_owned());
        } else if line.is_empty() {
            groups.push(Vec::new());
        }
    }
    groups
}

/// The circles of a graph, each once. A circle begins with the first of its places in order.
fn circles(graph: &BTreeMap<Place, BTreeSet<Place>>) -> Vec<Vec<Place>> {
    let path = |from: &Place, to: &Place| -> Option<Vec<Place>> {
        let mut came_from = BTreeMap::from([(from.clone(), None)]);
        let mut queue = std::collections::VecDeque::from([from.clone()]);
        while let Some(place) = queue.pop_front() {
            for next in graph.get(&place).into_iter().flatten() {
                if next == to {
                    let mut way = vec![place];
                    while let Some(Some(before)) = came_from.get(&way[way.len() - 1]) {
                        let before: Place = Clone::clone(before);
                        way.push(before);
                    }
                    way.reverse();
                    return Some(way);
                }
                if !came_from.contains_key(next) {
                    came_from.insert(next.clone(), Some(place.clone()));
                    queue.push_back(next.clone());
                }
            }
        }
        None
    };
    let mut found: Vec<Vec<Place>> = Vec::new();
    for place in graph.keys() {
        if !found.iter().any(|circle| circle.contains(place))
            && let Some(circle) = path(place, place)
        {
            found.push(circle);
        }
    }
    found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Colons,
    Other(char),
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|char: char| !char.is_alphanumeric() && char != '_');
        let word = word.unwrap_or(rest.len());
        let (token, length) = if word > 0 {
            (Token::Word(&rest[..word]), word)
        } else if rest.starts_with("::") {
            (Token::Colons, 2)
        } else {
            (Token::Other(first), first.len_utf8())
        };
        found.push(token);
        rest = rest[length..].trim_start();
    }
    found
}

impl File {
    fn of(place: &[String], tokens: &[Token<'_>], places: &BTreeSet<Place>) -> Self {
        let mut file = Self::default();
        // `depth` counts open braces. `inner` has the depth at which each module within the file
        // began.
        let (mut depth, mut inner) = (0, Vec::new());
        let mut at = 0;
        while at < tokens.len() {
            let before = at.checked_sub(1).map(|before| tokens[before]);
            match (tokens[at], tokens.get(at + 1)) {
                (Token::Other('{'), _) => depth += 1,
                (Token::Other('}'), _) => {
                    depth -= 1;
                    inner.pop_if(|began| *began == depth);
                }
                (Token::Word("mod"), Some(Token::Word(_)))
                    if tokens.get(at + 2) == Some(&Token::Other('{')) =>
                {
                    inner.push(depth);
                }
                (Token::Word("use"), Some(Token::Word(_))) => {
                    let end = tokens[at..].iter().position(|token| *token == Token::Other(';'));
                    let end = end.map_or(tokens.len(), |end| at + end);
                    for (path, name) in tree(&tokens[at + 1..end]) {
                        if let Some(path) = absolute(place, inner.len(), &path, places) {
                            file.paths.push(path.clone());
                            file.names.insert(name, path);
                        }
                    }
                    at = end;
                }
                (Token::Word(_), Some(Token::Colons))
                    if !matches!(before, Some(Token::Colons | Token::Other('.')))
                        && !is_visibility(&tokens[..at]) =>
                {
                    let path: Vec<&str> = tokens[at..]
                        .chunks(2)
                        .map_while(|pair| match pair {
                            [Token::Word(word), Token::Colons] => Some((*word, true)),
                            [Token::Word(word), ..] => Some((*word, false)),
                            _ => None,
                        })
                        .scan(true, |goes_on, (word, more)| {
                            std::mem::replace(goes_on, more).then_some(word)
                        })
                        .collect();
                    file.paths.extend(absolute(place, inner.len(), &path, places));
                }
                _ => {}
            }
            at += 1;
        }
        file
    }
}

/// Whether the path that follows is PLACE in a visibility `pub(in PLACE)`.
fn is_visibility(before: &[Token<'_>]) -> bool {
    before.ends_with(&[Token::Word("pub"), Token::Other('('), Token::Word("in")])
}

/// The paths of a `use` line, each with the name that it binds.
fn tree<'a>(tokens: &[Token<'a>]) -> Vec<(Vec<&'a str>, String)> {
    let mut found = Vec::new();
    let (mut stack, mut path): (Vec<Vec<&str>>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut alias = None;
    let mut is_alias = false;
    let mut close = |path: &mut Vec<&'a str>, alias: &mut Option<&'a str>, prefix: usize| {
        if path.len() > prefix {
            if path.len() > 1 {
                path.pop_if(|last| *last == "self");
            }
            let name = alias.take().or(path.last().copied()).unwrap_or_default().to_owned();
            found.push((path.clone(), name));
        }
    };
    for token in tokens {
        let prefix = stack.last().map_or(0, Vec::len);
        match token {
            Token::Word("as") => is_alias = true,
            Token::Word(word) if std::mem::take(&mut is_alias) => alias = Some(*word),
            Token::Word(word) => path.push(word),
            Token::Other('{') => stack.push(path.clone()),
            Token::Other(',') => {
                close(&mut path, &mut alias, prefix);
                path = stack.last().cloned().unwrap_or_default();
            }
            Token::Other('}') => {
                close(&mut path, &mut alias, prefix);
                stack.pop();
                path.clear();
            }
            Token::Other('*') => path.push("*"),
            Token::Other(_) | Token::Colons => {}
        }
    }
    close(&mut path, &mut alias, 0);
    found
}

/// The path as seen from the root of the crate; `None` if it leads out of the crate.
fn absolute(
    place: &[String],
    inner: usize,
    path: &[&str],
    places: &BTreeSet<Place>,
) -> Option<Place> {
    let owned = |path: &[&str]| path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (first, rest) = path.split_first()?;
    match *first {
        "crate" => Some(owned(rest)),
        "self" if inner == 0 => Some([place, &owned(rest)].concat()),
        "super" => {
            let up = path.iter().take_while(|name| **name == "super").count();
            // The first `super`s lead out of the modules within the file.
            let base = place.len().checked_sub(up.saturating_sub(inner))?;
            (up >= inner).then(|| [&place[..base], &owned(&path[up..])].concat())
        }
        child => {
            let child = [place, &[child.to_owned()]].concat();
            (inner == 0 && places.contains(&child)).then(|| [&child[..], &owned(rest)].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sources: &[(&str, &str)]) -> Crate {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Crate::of(&sources.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn circles_of_files_and_rooms_are_found() {
        let check = |sources: &[(&str, &str)], expected: &[&str]| {
            assert_eq!(of(sources).circles(), expected, "{sources:?}");
        };
        check(&[("a.rs", "use crate::b::B;"), ("b.rs", "")], &[]);
        let back = |path| [("a.rs", "use crate::b::B;"), ("b.rs", path)];
        for path in [
            "use crate::a;",
            "use super::a::{self, A};",
            "use crate::{\n    a::{A as C, D},\n};",
            "fn f() -> crate::a::A {}",
            "mod tests { use super::super::a::A; }",
            "fn f() { super::a::f::<u8>(); }",
        ] {
            check(&back(path), &["files: a -> b", "rooms: a -> b"]);
        }
        for path in [
            "// crate::a\nconst TEXT: &str = \"crate::a::A\";",
            "pub(in crate::a) fn f() {}",
            "use other::a::A;",
            "mod tests { use super::a::A; }",
            "use self::a::A;",
        ] {
            check(&back(path), &[]);
        }
        // A submodule may use the module that contains it, even if that module uses the submodule.
        check(
            &[("a/mod.rs", "mod b; use b::B;"), ("a/b.rs", "use super::A; use crate::a::C;")],
            &[],
        );
        // A name that is re-exported leads to its origin.
        check(
            &[
                ("a/mod.rs", "pub use self::b::B;\npub use self::c::C;"),
                ("a/b.rs", "use super::C;"),
                ("a/c.rs", "use super::B;"),
            ],
            &["files: a::b -> a::c", "rooms: a::b -> a::c"],
        );
        // There is no circle of files, but one of rooms. Files of tests belong to no room.
        let (there, back) = (("a/x.rs", "use crate::b::y;"), "use crate::a::w;");
        let others = [("a/w.rs", ""), ("b/y.rs", "")];
        check(&[there, others[0], others[1], ("b/z.rs", back)], &["rooms: a -> b"]);
        check(&[there, others[0], others[1], ("b/tests.rs", back)], &[]);
    }

    #[test]
    fn imports_against_the_order_are_found() {
        let lib = ("lib.rs", "//! A crate.\n\npub mod a;\nmod b;\n\nmod c;\n");
        let check = |from: &str, path: &str, [upward, downward]: [usize; 2]| {
            let found = of(&[lib, ("a.rs", ""), ("b.rs", ""), ("c.rs", ""), (from, path)]);
            let count = |order| found.against(order).len();
            assert_eq!(
                [count(Order::Upward), count(Order::Downward)],
                [upward, downward],
                "{from}"
            );
        };
        check("a.rs", "use crate::c::C;", [1, 0]);
        check("c.rs", "use crate::a::A;", [0, 1]);
        check("a.rs", "use crate::b::B;", [0, 0]);
        check("a/tests.rs", "use crate::c::C;", [0, 0]);
    }
}
