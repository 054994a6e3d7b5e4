//! What a request wants of an item: conditions first, then the range (RFC 9110, sections 13 and 14).
//!
//! Pure: headers in, a decision out.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, Method, header};
use http_range_header::{
    EndPosition, RangeUnsatisfiableError, StartPosition, SyntacticallyCorrectRange,
    parse_range_header,
};

/// What a request is to be answered with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    /// 200 with everything.
    Whole,
    /// 206 with these bytes; never none.
    Part(Range<u64>),
    /// 304: the reader has it.
    NotModified,
    /// 412: the reader wants another state of the item.
    Failed,
    /// 416: no such bytes.
    Unsatisfiable,
}

/// Decides for an item of `size` bytes whose state bears the strong `etag`.
pub(super) fn decide(method: &Method, headers: &HeaderMap, etag: &str, size: u64) -> Decision {
    if is_present(headers, &header::IF_MATCH) && !names(headers, &header::IF_MATCH, etag, false) {
        return Decision::Failed;
    }
    if names(headers, &header::IF_NONE_MATCH, etag, true) {
        return Decision::NotModified;
    }
    // Only one line of a range is a range, and only a GET has one.
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None, &Method::GET) = (ranges.next(), ranges.next(), method) else {
        return Decision::Whole;
    };
    let is_meant = match headers.get(header::IF_RANGE) {
        // Dates never match: the gateway gives none out.
        Some(condition) => condition.as_bytes() == etag.as_bytes(),
        None => true,
    };
    match range.to_str() {
        Ok(range) if is_meant => decide_range(range, size),
        Ok(_) | Err(_) => Decision::Whole,
    }
}

/// Of several ranges the first that exists is given: one part is enough, whoever wants more asks again (15.3.7).
/// What is no range is ignored (section 14.2).
fn decide_range(text: &str, size: u64) -> Decision {
    let text = text.trim();
    // The unit is case-insensitive; the parser takes small letters.
    let text = match text.split_at_checked(6) {
        Some((unit, ranges)) if unit.eq_ignore_ascii_case("bytes=") => format!("bytes={ranges}"),
        _ => return Decision::Whole,
    };
    let ranges = match parse_range_header(&text) {
        Ok(parsed) => parsed.ranges,
        Err(RangeUnsatisfiableError::ZeroSuffix) if !text.contains(',') => {
            return Decision::Unsatisfiable;
        }
        Err(_) => return Decision::Whole,
    };
    if ranges.iter().any(is_reversed) {
        return Decision::Whole;
    }
    let first = ranges.iter().map(|range| clip(range, size)).find(|range| !range.is_empty());
    first.map_or(Decision::Unsatisfiable, Decision::Part)
}

fn is_reversed(range: &SyntacticallyCorrectRange) -> bool {
    matches!((range.start, range.end), (StartPosition::Index(start), EndPosition::Index(end)) if end < start)
}

fn clip(range: &SyntacticallyCorrectRange, size: u64) -> Range<u64> {
    let start = match range.start {
        StartPosition::Index(start) => start.min(size),
        StartPosition::FromLast(length) => size.saturating_sub(length),
    };
    let end = match range.end {
        EndPosition::Index(last) => last.saturating_add(1).min(size),
        EndPosition::LastByte => size,
    };
    start..end
}

fn is_present(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.contains_key(name)
}

/// Whether a list of entity tags has `etag`, or is `*`. A weak comparison takes `W/` for nothing.
fn names(headers: &HeaderMap, name: &HeaderName, etag: &str, is_weak: bool) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| {
        let tag = if is_weak { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        tag == "*" || tag == etag
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const ETAG: &str = "\"0123\"";

    fn of(method: &Method, lines: &[(HeaderName, &str)], size: u64) -> Decision {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        decide(method, &headers, ETAG, size)
    }

    #[test]
    fn every_form_of_a_range_is_decided_as_the_standard_has_it() {
        use Decision::{Part, Unsatisfiable, Whole};
        let cases = [
            ("bytes=0-", Part(0..100)),
            ("bytes=0-0", Part(0..1)),
            ("bytes=0-99", Part(0..100)),
            ("bytes=10-19", Part(10..20)),
            ("bytes=99-", Part(99..100)),
            ("bytes=90-1000", Part(90..100)),
            ("bytes=0-18446744073709551615", Part(0..100)),
            ("bytes=-1", Part(99..100)),
            ("bytes=-100", Part(0..100)),
            ("bytes=-1000", Part(0..100)),
            ("BYTES=5-6", Part(5..7)),
            (" bytes=5-6 ", Part(5..7)),
            ("bytes=100-", Unsatisfiable),
            ("bytes=100-200", Unsatisfiable),
            ("bytes=18446744073709551615-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=500-600,700-", Unsatisfiable),
            // several: the first that exists
            ("bytes=1-2,4-5", Part(1..3)),
            ("bytes=1-2, 4-5", Part(1..3)),
            ("bytes=500-600,4-5", Part(4..6)),
            ("bytes=4-5,0-50", Part(4..6)),
            // no ranges: as if there were none
            ("bytes=5-4", Whole),
            ("bytes=0-1,5-4", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes=a-b", Whole),
            ("bytes=1", Whole),
            ("bytes 0-1", Whole),
            ("bytes=0x1-2", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1-2-3", Whole),
            ("bytes=99999999999999999999999-", Whole),
            ("items=0-1", Whole),
            ("\u{e9}\u{e9}\u{e9}", Whole),
            ("", Whole),
        ];
        for (text, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(decide(&Method::GET, &headers, ETAG, 100), expected, "{text:?}");
        }
    }

    #[test]
    fn an_empty_item_has_no_range() {
        for text in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            let decision = of(&Method::GET, &[(header::RANGE, text)], 0);
            assert_eq!(decision, Decision::Unsatisfiable, "{text}");
        }
        assert_eq!(of(&Method::GET, &[], 0), Decision::Whole);
    }

    #[test]
    fn only_a_get_has_one_range() {
        let range = (header::RANGE, "bytes=0-1");
        assert_eq!(of(&Method::HEAD, std::slice::from_ref(&range), 9), Decision::Whole);
        assert_eq!(of(&Method::GET, &[range.clone(), range], 9), Decision::Whole, "two lines");
    }

    #[test]
    fn conditions_go_before_the_range() {
        use Decision::{Failed, NotModified, Part, Whole};
        let range = (header::RANGE, "bytes=0-1");
        let cases = [
            (header::IF_NONE_MATCH, "\"0123\"", NotModified),
            (header::IF_NONE_MATCH, "W/\"0123\"", NotModified),
            (header::IF_NONE_MATCH, "\"a\", \"0123\"", NotModified),
            (header::IF_NONE_MATCH, "*", NotModified),
            (header::IF_NONE_MATCH, "\"a\"", Part(0..2)),
            (header::IF_MATCH, "\"0123\"", Part(0..2)),
            (header::IF_MATCH, "*", Part(0..2)),
            (header::IF_MATCH, "W/\"0123\"", Failed),
            (header::IF_MATCH, "\"a\"", Failed),
            (header::IF_RANGE, "\"0123\"", Part(0..2)),
            (header::IF_RANGE, "W/\"0123\"", Whole),
            (header::IF_RANGE, "\"a\"", Whole),
            (header::IF_RANGE, "Sat, 21 Nov 2026 12:00:00 GMT", Whole),
        ];
        for (name, value, expected) in cases {
            let decision = of(&Method::GET, &[range.clone(), (name.clone(), value)], 9);
            assert_eq!(decision, expected, "{name}: {value}");
        }
    }
}
