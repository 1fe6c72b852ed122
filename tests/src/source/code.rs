//! Rust code without its comments and string literals, and the functions in it.

/// The code of a file without comments and without the content of literals. Line ends stay.
#[must_use]
pub fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let before = code.chars().last();
        let (length, stands_for) = match token(rest, before) {
            Some(length) if rest.starts_with('/') => (length, ""),
            Some(length) if rest.starts_with('\'') => (length, "' '"),
            Some(length) => (length, "\"\""),
            None => (first.len_utf8(), &rest[..first.len_utf8()]),
        };
        let (gone, left) = rest.split_at(length);
        code.push_str(stands_for);
        if stands_for != gone {
            code.extend(gone.chars().filter(|char| *char == '\n'));
        }
        rest = left;
    }
    code
}

/// Bytes of the comment, string literal or character literal that begins here, if one does.
fn token(rest: &str, before: Option<char>) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    if let Some(text) = rest.strip_prefix('"') {
        return Some(1 + end_of_text(text));
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    // A raw string literal, unless the `r` is the end of a name.
    let is_name = before.is_some_and(|char| char.is_alphanumeric() || char == '_');
    let raw = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r').filter(|_| !is_name)?;
    let marks = raw.len() - raw.trim_start_matches('#').len();
    let content = raw[marks..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(marks));
    let length = content.find(&end).map_or(content.len(), |at| at + end.len());
    Some(rest.len() - content.len() + length)
}

fn end_of_text(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, char) in text.char_indices() {
        match char {
            '"' if !is_escaped => return at + 1,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    text.len()
}

/// Bytes of a character literal; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let content = &rest[1..];
    let length = match content.strip_prefix('\\') {
        Some(escape) => 2 + escape.char_indices().skip(1).find(|(_, char)| *char == '\'')?.0,
        None => 1 + content.chars().next()?.len_utf8(),
    };
    rest[length..].starts_with('\'').then_some(length + 1)
}

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Number of its first line, from 1.
    pub line: usize,
    /// Its lines, from `fn` to the last brace.
    pub lines: usize,
    /// Its lines without those of its longest `match`.
    pub besides_match: usize,
}

/// The functions in code that [`code_of`] returned.
#[must_use]
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let is_word = !code[..start].ends_with(|char: char| char.is_alphanumeric() || char == '_');
        let rest = &code[start + 3..];
        let name: String =
            rest.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
        let Some(body) = body(rest).filter(|_| is_word && !name.is_empty()) else { continue };
        let end = start + 3 + body.end;
        let matches = code[start..end].match_indices("match ").filter_map(|(at, _)| {
            let arms = blocks(&code[start + at..end]).next()?;
            Some(line_ends(&code[start + at..start + at + arms.end]))
        });
        let lines = line_ends(&code[start..end]) + 1;
        found.push(Function {
            name,
            line: line_ends(&code[..start]) + 1,
            lines,
            besides_match: lines - matches.max().unwrap_or(0),
        });
    }
    found
}

fn line_ends(code: &str) -> usize {
    code.matches('\n').count()
}

/// The range of the body that follows the name of a function; `None` if there is no body.
fn body(signature: &str) -> Option<std::ops::Range<usize>> {
    let mut depth = 0;
    for (at, char) in signature.char_indices() {
        match char {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => {
                let block = blocks(&signature[at..]).next()?;
                return Some(at + block.start..at + block.end);
            }
            _ => {}
        }
    }
    None
}

/// The ranges of the outermost blocks in braces.
fn blocks(code: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    let (mut depth, mut start) = (0usize, 0);
    code.char_indices().filter_map(move |(at, char)| match char {
        '{' => {
            if depth == 0 {
                start = at;
            }
            depth += 1;
            None
        }
        '}' => {
            depth = depth.saturating_sub(1);
            (depth == 0).then_some(start..at + 1)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_gone_and_lines_stay() {
        for (text, code) in [
            ("a // b\nc", "a \nc"),
            ("a /* b\n */ c", "a \n c"),
            (r#"f("a // \" b", x)"#, r#"f("", x)"#),
            ("r#\"a \" \n b\"# + 1", "\"\"\n + 1"),
            ("var\"x\"", "var\"\""),
            (r"let c = '\''; 'a: loop {}", "let c = ' '; 'a: loop {}"),
            ("f::<'a>('\"', \"x\")", "f::<'a>(' ', \"\")"),
        ] {
            assert_eq!(code_of(text), code);
        }
    }

    #[test]
    fn functions_are_measured() {
        let code = [
            "impl A {",
            "    fn one(&self) -> [u8; 2] {",
            "        match x {",
            "            1 => {}",
            "        }",
            "    }",
            "    fn none();",
            "}",
            "fn two<const N: usize>() {}",
        ]
        .join("\n");
        let found: Vec<_> = functions(&code)
            .into_iter()
            .map(|one| (one.name, one.line, one.lines, one.besides_match))
            .collect();
        assert_eq!(found, [("one".to_owned(), 2, 5, 3), ("two".to_owned(), 9, 1, 1)]);
    }
}
