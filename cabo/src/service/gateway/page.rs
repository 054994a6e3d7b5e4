//! Plain pages: a folder's list, and one item to watch. No script, no style, every name escaped.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::service::media::{Entry, EntryKind, ItemInfo, ItemPath};

const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One name, as it stands in a URL.
pub(super) fn encode(name: &[u8]) -> String {
    percent_encode(name, NAME).to_string()
}

/// A path, as it stands in a URL.
pub(super) fn encode_path(path: &ItemPath) -> String {
    path.components().map(encode).collect::<Vec<_>>().join("/")
}

/// A path from a URL; none if no item can stand there.
pub(super) fn decode_path(text: &str) -> Option<ItemPath> {
    let mut names = Vec::new();
    for part in text.split('/').filter(|_| !text.is_empty()) {
        let name = percent_decode_str(part).collect::<Vec<u8>>();
        if name.contains(&b'/') {
            return None; // an encoded slash is no separator, and no name has one
        }
        names.push(name);
    }
    ItemPath::new(names.join(&b'/')).ok()
}

/// The list of a folder.
pub(super) fn folder(path: &ItemPath, entries: &[Entry], is_cut: bool) -> String {
    let title = if path.is_root() { "Catalogue".to_owned() } else { escape(&path.to_string()) };
    let mut list = String::new();
    if !path.is_root() {
        list.push_str("<li><a href=\"../\">up</a></li>\n");
    }
    for entry in entries {
        let (name, link) = (escape(&entry.path.to_string()), encode_path(&entry.path));
        let _ = match entry.kind {
            EntryKind::Folder => writeln!(list, "<li><a href=\"./{link}/\">{name}/</a></li>"),
            EntryKind::File => writeln!(
                list,
                "<li><a href=\"./{link}?watch\">{name}</a> ({} bytes, \
                 <a href=\"./{link}\">the file itself<span hidden> {name}</span></a>)</li>",
                entry.size
            ),
            EntryKind::Unknown(_) => Ok(()),
        };
    }
    let cut = if is_cut { "<p>There are more, which this page leaves out.</p>\n" } else { "" };
    page(&title, &format!("<ul>\n{list}</ul>\n{cut}"))
}

/// A player for one item, or what else a browser shows it in.
pub(super) fn watch(path: &ItemPath, info: &ItemInfo) -> String {
    let name = path.components().last().unwrap_or_default();
    let (title, link) = (escape(&path.to_string()), encode(name));
    let body = match info.media_type.split('/').next().unwrap_or_default() {
        "video" => {
            format!("<video controls autoplay src=\"./{link}\" aria-label=\"{title}\"></video>\n")
        }
        "audio" => {
            format!("<audio controls autoplay src=\"./{link}\" aria-label=\"{title}\"></audio>\n")
        }
        "image" => format!("<img src=\"./{link}\" alt=\"{title}\">\n"),
        _ => String::new(),
    };
    page(
        &title,
        &format!(
            "{body}<p><a href=\"./{link}\">The file itself</a> ({} bytes), <a href=\"./\">its folder</a></p>\n",
            info.size
        ),
    )
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_its_url() {
        let names: [&[u8]; 8] = [
            b"films/life.webm",
            b"a b",
            "trip \u{e9} \"day\" 100%/-readme \u{f1}.txt".as_bytes(),
            b"\xff\xfe/\x01\n",
            b"a?b#c;d&e=f",
            b"%2e%2e",
            b"<script>alert('1')</script>",
            b"a:b\\c",
        ];
        for name in names {
            let path = ItemPath::new(name).unwrap();
            let text = encode_path(&path);
            assert!(text.is_ascii() && !text.contains(['?', '#', ' ', '"', '<']), "{text}");
            assert_eq!(decode_path(&text), Some(path), "{text}");
        }
        assert_eq!(decode_path(""), Some(ItemPath::default()));
    }

    #[test]
    fn a_url_cannot_lead_out() {
        for text in ["..", "a/../b", "%2e%2e/a", "a%2fb", "%2f", "/a", "a//b", "a%00", "."] {
            assert_eq!(decode_path(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_cannot_be_markup() {
        let path = ItemPath::new("<img src=x onerror='alert(1)'>&\".mp4").unwrap();
        let info = ItemInfo {
            size: 1,
            modified: Default::default(),
            mode: None,
            media_type: "video/mp4".to_owned(),
            version: crate::service::media::Version([0; 16]),
            root: None,
        };
        let page = watch(&path, &info);
        assert!(!page.contains("<img") && !page.contains("onerror='"), "{page}");
        assert!(page.contains("<video controls"), "{page}");
    }
}
