//! `--exclude`: which items of a folder are left out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use cabo::service::media::{FetchAllOptions, ItemPath, LeftOut};
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::All;
use crate::exit::Failure;

/// Patterns of what is left out. One without `/` is for a name at any depth, another one for the path from the folder
/// that is fetched; what fits a folder goes for all that is in it.
#[derive(Clone, Debug)]
pub(super) struct Globs {
    names: GlobSet,
    paths: GlobSet,
}

impl Globs {
    pub(super) fn new(patterns: &[String]) -> Result<Self, Failure> {
        let (paths, names): (Vec<_>, Vec<_>) =
            patterns.iter().partition(|pattern| pattern.trim_end_matches('/').contains('/'));
        Ok(Self { names: set(&names)?, paths: set(&paths)? })
    }

    /// Whether an item, or a folder above it, is left out.
    pub(super) fn fit(&self, item: &ItemPath) -> bool {
        if self.names.is_empty() && self.paths.is_empty() {
            return false;
        }
        let path = Path::new(OsStr::from_bytes(item.as_bytes()));
        path.ancestors().any(|path| {
            let name = path.file_name();
            name.is_some_and(|name| self.names.is_match(name) || self.paths.is_match(path))
        })
    }
}

impl All {
    pub(super) fn options(&self) -> FetchAllOptions {
        let excluded = self.excluded.clone();
        let is_left_out: LeftOut = Arc::new(move |item| excluded.fit(item));
        FetchAllOptions {
            parallel: self.parallel,
            is_left_out: Some(is_left_out),
            ..FetchAllOptions::default()
        }
    }
}

fn glob(pattern: &str) -> Result<Glob, globset::Error> {
    let pattern = pattern.trim_end_matches('/').trim_start_matches('/');
    GlobBuilder::new(pattern).literal_separator(true).build()
}

fn set(patterns: &[&String]) -> Result<GlobSet, Failure> {
    let mut set = GlobSetBuilder::new();
    let refused = |error: globset::Error| Failure::usage(format!("--exclude: {error}"));
    for pattern in patterns {
        set.add(glob(pattern).map_err(refused)?);
    }
    set.build().map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_for_a_name_a_path_or_all_in_a_folder() {
        let fit = |patterns: &[&str], item: &[u8]| {
            let patterns: Vec<String> = patterns.iter().map(|&text| text.to_owned()).collect();
            Globs::new(&patterns).expect("good").fit(&ItemPath::new(item).expect("good"))
        };
        let cases: [(&[&str], &[u8], bool); 15] = [
            (&[], b"a", false),
            (&["*.tmp"], b"a.tmp", true),
            (&["*.tmp"], b"deep/er/a.tmp", true),
            (&["*.tmp"], b"a.tmp/inside", true),
            (&["*.tmp"], b"a.tmpx", false),
            (&["cache"], b"x/cache/y", true),
            (&["cache/"], b"cache/y", true),
            (&["sub/*.log"], b"sub/a.log", true),
            (&["sub/*.log"], b"other/sub/a.log", false),
            (&["sub/*.log"], b"sub/deeper/a.log", false),
            (&["/top"], b"top", true),
            (&["/top"], b"sub/top", false),
            (&["**/x/*"], b"a/b/x/y", true),
            (&["a", "{b,c}?"], b"c1", true),
            (&["*"], b"\xff\xfe", true),
        ];
        for (patterns, item, expected) in cases {
            assert_eq!(fit(patterns, item), expected, "{patterns:?} {item:?}");
        }
        for bad in ["a[", "{a"] {
            assert!(Globs::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
