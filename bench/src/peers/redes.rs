//! The course protocol: one file, from a catalogue on one end of a link to a folder on the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use cabo::carrier::redes::Redes;
use cabo::redes::fetch::fetch;
use cabo::redes::serve::{Link, Service};
use cabo::redes::{Options, Settings};
use cabo::service::media::{Catalogue, ItemPath, Target};

use crate::job::{Counted, Job};

/// As the issue of the figure has it; the programs of the course go up to 5 too.
const WINDOW: u8 = 5;
const NAME: &str = "file";

pub(super) fn run(job: &Job) -> Result<()> {
    let settings = Settings { window: WINDOW, ..Options::default().settings };
    let folder = Folder::make()?;
    let mut link = Link::new(Redes::open(&job.listen, false)?);
    if super::is_sender(job) {
        let target = Target::open(&folder.0)?;
        let since = Instant::now();
        let place = ItemPath::new(NAME)?;
        let fetched =
            fetch(&mut link, settings, NAME.as_bytes(), &target, &place, &mut |_, _, _| {})?;
        let seconds = since.elapsed().as_secs_f64();
        super::say(&Counted { bytes: fetched.size, seconds, cpu_seconds: super::cpu_seconds() });
        return Ok(());
    }
    let block = super::block();
    let bytes: Vec<u8> = block.iter().copied().cycle().take(job.bytes as usize).collect();
    std::fs::write(folder.0.join(NAME), bytes)?;
    let catalogue = Arc::new(Catalogue::open(&folder.0)?);
    let stop = link.stop();
    std::thread::spawn(move || {
        let _ = std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new());
        stop.stop();
    });
    super::say(&"ready");
    Service::new(link, settings, catalogue).run(|_| {})?;
    Ok(())
}

/// A folder that goes with this process.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("cabo-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // the system clears it otherwise
    }
}
