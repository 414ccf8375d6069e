//! A disk of one region that can be made full: a tmpfs that is shrunk to what is in it, and grown again.

use std::path::{Path, PathBuf};

use crate::error::{ChaosError, Result, run_tool};

/// Enough for any run; only what is written takes memory.
const ROOMY: &str = "8g";
const BLOCK_BYTES: u64 = 4096;
/// A shrink fails while more is written than it leaves room for; it is tried so often.
const SHRINK_TRIES: usize = 10;

/// A mounted tmpfs; it is unmounted when this is dropped.
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it at a directory, which is made.
    pub async fn mount(path: &Path) -> Result<SmallDisk> {
        std::fs::create_dir_all(path)?;
        let text = path.to_string_lossy();
        run_tool(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={ROOMY}"), "tmpfs", &text],
        )
        .await?;
        Ok(SmallDisk {
            path: path.to_owned(),
        })
    }

    /// Leaves room for so many bytes and no more.
    pub async fn fill(&self, room_bytes: u64) -> Result<()> {
        let mut problem = String::new();
        for _ in 0..SHRINK_TRIES {
            let size = self.used_bytes().await? + room_bytes.max(BLOCK_BYTES);
            match self.resize(&size.to_string()).await {
                Ok(()) => return Ok(()),
                Err(error) => problem = error.to_string(),
            }
        }
        Err(ChaosError::Arguments(format!(
            "the disk cannot be filled: {problem}"
        )))
    }

    /// Makes it roomy again.
    pub async fn empty(&self) -> Result<()> {
        self.resize(ROOMY).await
    }

    async fn resize(&self, size: &str) -> Result<()> {
        let text = self.path.to_string_lossy();
        run_tool("mount", &["-o", &format!("remount,size={size}"), &text]).await?;
        Ok(())
    }

    async fn used_bytes(&self) -> Result<u64> {
        let text = self.path.to_string_lossy();
        let answer = run_tool("df", &["--block-size=1", "--output=used", &text]).await?;
        let used = answer.lines().nth(1).and_then(|line| line.trim().parse().ok());
        used.ok_or_else(|| ChaosError::Arguments(format!("df says {answer:?}")))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a file that is still open must not keep the directory mounted for ever.
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.path)
            .status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_filled_disk_takes_nothing_until_it_is_emptied() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("disk");
        let disk = match SmallDisk::mount(&path).await {
            Ok(disk) => disk,
            Err(error) => {
                eprintln!("left out: {error}");
                return;
            }
        };
        std::fs::write(path.join("before"), [1; 10_000]).expect("there is room");
        disk.fill(0).await.expect("it can be filled");
        assert!(std::fs::write(path.join("during"), [1; 100_000]).is_err());
        disk.empty().await.expect("it can be emptied");
        std::fs::write(path.join("after"), [1; 100_000]).expect("there is room again");
        drop(disk);
    }
}
