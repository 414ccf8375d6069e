//! How long after its acknowledgement a write is in a view of another region.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{cluster, execute, failed, first, ms, percentile, wait_for};
use crate::Result;

const WRITES: u64 = 200;
const PAUSE: Duration = Duration::from_millis(37);

pub async fn run(binary: &Path, delays_ms: &[u64]) -> Result<()> {
    println!("visibility of a write in a view of another region, after its acknowledgement, ms");
    println!("one-way delay |   p50 |   p99 | beside the delay: p50 |   p99");
    for &delay_ms in delays_ms {
        let (cluster, clients) = cluster(binary, &["us", "eu"]).await?;
        let (us, eu) = (&clients[0], &clients[1]);
        execute(us, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint)").await?;
        execute(
            us,
            "CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n, max(id) AS newest FROM t",
        )
        .await?;
        wait_for(eu, "SELECT n FROM m", "0").await?;
        cluster.set_delay(Duration::from_millis(delay_ms));
        // The links learn the round trip.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut times = Vec::new();
        for id in 0..WRITES {
            execute(us, &format!("INSERT INTO t VALUES ({id}, {id})")).await?;
            let acknowledged = Instant::now();
            let expected = id.to_string();
            while first(eu, "SELECT newest FROM m").await.as_ref() != Some(&expected) {
                if acknowledged.elapsed() > super::AGREE_MAX {
                    return Err(format!("write {id} does not arrive"));
                }
            }
            times.push(acknowledged.elapsed());
            // Not in step with the links' ticks.
            tokio::time::sleep(PAUSE + Duration::from_millis(id * 7 % 23)).await;
        }
        times.sort();
        let delay = Duration::from_millis(delay_ms);
        let beside = |percent| ms(percentile(&times, percent)) - ms(delay);
        println!(
            "{delay_ms:>13} | {:>5.1} | {:>5.1} | {:>21.1} | {:>5.1}",
            ms(percentile(&times, 50)),
            ms(percentile(&times, 99)),
            beside(50),
            beside(99)
        );
        cluster.stop().await.map_err(failed)?;
    }
    Ok(())
}
