//! Functions of at most 70 lines; the exceptions stand in `long_functions.txt`, which only shrinks.

use crate::{Finding, finding, source::Source};
use std::collections::BTreeMap;

const MAX_LINES: usize = 70;
pub(crate) const LIST: &str = "cabo-cli/tests/tidy/long_functions.txt";

pub(crate) fn long_functions(files: &[Source], list: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut allowed = BTreeMap::new();
    for (index, line) in list.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [path, name, count] if count.parse::<usize>().is_ok() => {
                allowed.insert(
                    (path, name.to_owned()),
                    (index + 1, count.parse::<usize>().unwrap_or_default()),
                );
            }
            _ => found.push(in_list(index + 1, format!("`{line}` is not `path name lines`"))),
        }
    }
    for source in files.iter().filter(|source| source.is_rust()) {
        for function in
            source.functions().into_iter().filter(|function| function.line_count > MAX_LINES)
        {
            let (name, count) = (&function.name, function.line_count);
            match allowed.remove(&(source.path.as_str(), name.clone())) {
                Some((_, limit)) if count == limit => {}
                Some((line, limit)) if count < limit => {
                    found.push(in_list(
                        line,
                        format!("`{name}` has only {count} lines by now: lower its number"),
                    ));
                }
                Some((_, limit)) => {
                    let text = format!(
                        "`{name}` grew to {count} lines from {limit}: exceptions only shrink"
                    );
                    found.push(finding(source, function.line, text));
                }
                None => {
                    let text = format!(
                        "`{name}` has {count} lines, at most {MAX_LINES}: split it by clause"
                    );
                    found.push(finding(source, function.line, text));
                }
            }
        }
    }
    let stale = allowed.into_iter().map(|((path, name), (line, _))| {
        in_list(
            line,
            format!("`{name}` of {path} is short by now, or gone: strike it from the list"),
        )
    });
    found.extend(stale);
    found
}

fn in_list(line: usize, text: String) -> Finding {
    Finding { path: LIST.to_owned(), line, text }
}
