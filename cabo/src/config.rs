//! Where our files are: the directory of the identity and of the known servers, under sudo that of the invoking user.

use std::path::Path;

/// `path` as one word of a shell command, for the commands that errors suggest.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+=:,@%".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
