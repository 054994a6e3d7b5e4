//! The sample catalogue, inside the program, and a private folder where it is laid out to be served.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use cabo::service::media::tree::{BLOCK_BYTES, Hash, block_hash, root};

/// One item: its path and its bytes.
pub(super) struct Sample {
    pub(super) path: &'static str,
    pub(super) bytes: &'static [u8],
}

impl Sample {
    /// What `b3sum` prints for it, by our own bytes.
    pub(super) fn root(&self) -> Hash {
        let size = self.bytes.len() as u64;
        let blocks = self.bytes.chunks(usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX));
        root((0..).zip(blocks).map(|(index, block)| block_hash(size, index, block)))
    }
}

macro_rules! sample {
    ($path:literal) => {
        Sample {
            path: $path,
            bytes: include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../samples/catalogue/",
                $path
            )),
        }
    };
}

/// All of `samples/catalogue`.
pub(super) const SAMPLES: &[Sample] = &[
    sample!("empty.txt"),
    sample!("films/bars.ts"),
    sample!("films/counter.mp4"),
    sample!("films/counter.srt"),
    sample!("films/counter.vtt"),
    sample!("films/life.webm"),
    sample!("films/mandelbrot.mp4"),
    sample!("pictures/chart.png"),
    sample!("pictures/dusk.jpg"),
    sample!("trip é \"day\" 100%/-readme ñ.txt"),
];

/// A folder that only this user can enter; gone when it is dropped.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    /// Makes it, with the samples in it.
    pub(super) fn lay_out() -> io::Result<Self> {
        let private = fs::Permissions::from_mode(0o700);
        let folder =
            tempfile::Builder::new().prefix("cabo-demo-").permissions(private).tempdir()?;
        let folder = Self(folder);
        for sample in SAMPLES {
            let path = folder.catalogue().join(sample.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, sample.bytes)?;
        }
        Ok(folder)
    }

    /// What is served.
    pub(super) fn catalogue(&self) -> PathBuf {
        self.0.path().join("catalogue")
    }

    /// Where the Unix socket may stand, outside what is served.
    pub(super) fn socket(&self) -> PathBuf {
        self.0.path().join("cabo.sock")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_catalogue_is_inside() {
        fn count(folder: &Path) -> usize {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        let catalogue = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/catalogue");
        assert_eq!(SAMPLES.len(), count(&catalogue));
    }

    #[test]
    fn the_folder_is_private_and_does_not_stay() {
        let folder = Folder::lay_out().unwrap();
        let place = folder.0.path().to_owned();
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
        for sample in SAMPLES {
            assert_eq!(fs::read(folder.catalogue().join(sample.path)).unwrap(), sample.bytes);
        }
        drop(folder);
        assert!(!place.exists());
    }
}
