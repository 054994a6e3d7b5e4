//! Rust text as the rules of `main.rs` need it: code without comments and strings, paths written out, functions.
//!
//! No parser: the sources are formatted by rustfmt and compile, so a scan of characters is enough.

/// One file of the repository.
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments, strings and characters blanked; lines and columns stay.
    code: String,
    /// The first line that only tests see; 1 where the whole file is a test.
    tests_from: usize,
}

/// `std::net::TcpStream`, `super::seal` or a bare `word`; a macro keeps its `!`.
pub(crate) struct Path {
    pub(crate) line: usize,
    pub(crate) text: String,
}

pub(crate) struct Function {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) line_count: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code =
            if path.ends_with(".rs") { blank_comments_and_strings(text) } else { text.to_owned() };
        let tests_from =
            if path.contains("/tests/") || path.ends_with("tests.rs") || path.starts_with("tests/")
            {
                1
            } else {
                let lines: Vec<&str> = code.lines().map(str::trim).collect();
                let start = lines
                    .windows(2)
                    .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
                start.map_or(usize::MAX, |index| index + 1)
            };
        Self { path: path.to_owned(), text: text.to_owned(), code, tests_from }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The modules in other files that this file declares for tests alone, and the crate that they are in.
    pub(crate) fn test_modules(&self) -> Vec<(&str, &str)> {
        let home = self.path.split_once("/src/").map_or("", |(home, _)| home);
        let after = self.code.split("#[cfg(test)]\n").skip(1);
        let declarations = after.filter_map(|code| {
            // Blanked attributes such as a path may stand between.
            let line = code.lines().find(|line| !line.trim_start().starts_with('#'))?;
            line.split_once("mod ")?.1.strip_suffix(';')
        });
        declarations.map(|module| (home, module)).collect()
    }

    /// Makes the whole file a test where `test_modules` of its crate hold it or a module above it.
    pub(crate) fn mark_test(&mut self, test_modules: &[(String, String)]) {
        let home = self.path.split_once("/src/").map_or("", |(home, _)| home);
        let modules = self.modules();
        if test_modules.iter().any(|(of, module)| of == home && modules.contains(&module.as_str()))
        {
            self.tests_from = 1;
        }
    }

    pub(crate) fn is_test(&self, line: usize) -> bool {
        line >= self.tests_from
    }

    /// The modules from the crate's root to this file: `cabo-proto/src/wire/ack.rs` is `[wire, ack]`.
    pub(crate) fn modules(&self) -> Vec<&str> {
        let Some((_, inside)) = self.path.split_once("/src/") else { return Vec::new() };
        let mut modules: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
        if matches!(modules.last(), Some(&("mod" | "lib" | "main"))) {
            modules.pop();
        }
        modules
    }

    /// Every path and word of the code, `use` trees written out: `use a::{b, c::d}` is `a::b` and `a::c::d`.
    pub(crate) fn paths(&self) -> Vec<Path> {
        let chars: Vec<char> = self.code.chars().collect();
        let (mut found, mut prefixes, mut line, mut at) = (Vec::new(), Vec::<String>::new(), 1, 0);
        while at < chars.len() {
            let first = chars[at];
            if !is_word(first) {
                match first {
                    '\n' => line += 1,
                    '{' if !prefixes.is_empty() => prefixes.extend(prefixes.last().cloned()),
                    '}' => drop(prefixes.pop()),
                    _ => {}
                }
                at += 1;
                continue;
            }
            let start = at;
            while at < chars.len() && (is_word(chars[at]) || starts_with(&chars, at, "::")) {
                at += if is_word(chars[at]) { 1 } else { 2 };
            }
            if first.is_ascii_digit() {
                continue;
            }
            let mut text = prefixes.last().cloned().unwrap_or_default();
            text.extend(&chars[start..at]);
            if text.ends_with("::") && chars.get(at) == Some(&'{') {
                prefixes.push(text);
                at += 1;
                continue;
            }
            if chars.get(at) == Some(&'!') && chars.get(at + 1) != Some(&'=') {
                text.push('!');
            }
            found.push(Path { line, text: text.trim_end_matches(':').to_owned() });
        }
        found
    }

    /// Every function with a body, from its signature to its closing brace.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (offset, _) in self.code.match_indices("fn ") {
            let name: String =
                self.code[offset + 3..].chars().take_while(|&c| is_word(c)).collect();
            if name.is_empty() || self.code[..offset].ends_with(is_word) {
                continue;
            }
            let Some(length) = body_end(&self.code[offset..]) else { continue };
            let line = self.code[..offset].matches('\n').count() + 1;
            let line_count = self.code[offset..offset + length].matches('\n').count() + 1;
            found.push(Function { line, name, line_count });
        }
        found
    }
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn starts_with(chars: &[char], at: usize, wanted: &str) -> bool {
    wanted.chars().enumerate().all(|(offset, c)| chars.get(at + offset) == Some(&c))
}

/// The length of the function that `code` starts with; `None` where it has no body.
fn body_end(code: &str) -> Option<usize> {
    let (mut brackets, mut braces) = (0, 0);
    for (offset, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 {
                    return Some(offset);
                }
            }
            _ => {}
        }
    }
    None
}

fn blank_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut at) = (String::with_capacity(text.len()), 0);
    while at < chars.len() {
        let skipped = match chars[at] {
            '/' if starts_with(&chars, at, "//") => until_newline(&chars[at..]),
            '/' if starts_with(&chars, at, "/*") => block_comment(&chars[at..]),
            '"' => quoted(&chars[at..]),
            'r' if at == 0 || !is_word(chars[at - 1]) || matches!(chars[at - 1], 'b' | 'c') => {
                raw(&chars[at..])
            }
            '\'' if chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'') => {
                character(&chars[at..])
            }
            _ => 0,
        };
        if skipped == 0 {
            code.push(chars[at]);
            at += 1;
            continue;
        }
        let end = chars.len().min(at + skipped);
        code.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

fn until_newline(chars: &[char]) -> usize {
    chars.iter().position(|&c| c == '\n').unwrap_or(chars.len())
}

fn block_comment(chars: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < chars.len() {
        let step = if starts_with(chars, at, "/*") {
            depth += 1;
            2
        } else if starts_with(chars, at, "*/") {
            depth -= 1;
            2
        } else {
            1
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(chars: &[char]) -> usize {
    let mut at = 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// A raw string from its `r`; 0 where this is only a word that begins with one.
fn raw(chars: &[char]) -> usize {
    let hashes = chars[1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = hashes + 2;
    let end = (body..chars.len()).find(|&at| starts_with(chars, at, &close));
    end.map_or(chars.len(), |at| at + close.len())
}

fn character(chars: &[char]) -> usize {
    let from = if chars[1] == '\\' { 3 } else { 2 };
    chars[from..].iter().position(|&c| c == '\'').map_or(0, |offset| from + offset + 1)
}

#[test]
fn comments_and_strings_are_not_code() {
    let text = "a /* b /* c */ d */ e // f\n\"g \\\" h\" i r#\"j \" k\"# l '\\'' m '\"' n &'o p b\"q\" br\"r\"";
    let source = Source::new("x.rs", text);
    let words: Vec<String> = source.paths().into_iter().map(|path| path.text).collect();
    assert_eq!(words, ["a", "e", "i", "l", "m", "n", "o", "p", "b", "b"]);
    assert_eq!(source.code.len(), text.len(), "columns stay");
}

#[test]
fn use_trees_are_written_out() {
    let text = "use std::{\n    net::{IpAddr, TcpStream as Tcp},\n    time,\n};\nfn f() { x::<u8>(); dbg!(1 != 2); }";
    let source = Source::new("x.rs", text);
    let found: Vec<(usize, String)> =
        source.paths().into_iter().map(|path| (path.line, path.text)).collect();
    for expected in [
        (2, "std::net::IpAddr"),
        (2, "std::net::TcpStream"),
        (3, "std::time"),
        (5, "x"),
        (5, "dbg!"),
    ] {
        assert!(found.contains(&(expected.0, expected.1.to_owned())), "{expected:?} in {found:?}");
    }
}

#[test]
fn functions_are_measured_to_their_closing_brace() {
    let text = "trait T {\n    fn none(&self) -> [u8; 2];\n}\nfn one() {}\nfn four(\n) {\n    let x = \"}\";\n}\n";
    let found: Vec<_> = Source::new("x.rs", text)
        .functions()
        .into_iter()
        .map(|f| (f.name, f.line, f.line_count))
        .collect();
    assert_eq!(found, [("one".to_owned(), 4, 1), ("four".to_owned(), 5, 4)]);
}
