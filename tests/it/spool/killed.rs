//! `kill -9`.

use super::*;

/// Kills the program again and again; how many numbers were finished each time.
async fn kill_often(stage: &Stage, kills: usize) -> Vec<u64> {
    let mut finished = Vec::new();
    for kill in 0..kills {
        let before = stage.answers();
        let program = stage.start();
        stage.scrapes(10).await;
        // At another place between two scrapes each time.
        tokio::time::sleep(Duration::from_millis(37 * kill as u64 % 150)).await;
        program.signal("KILL");
        let killed = Instant::now();
        program.end().await;
        finished.extend(stage.finished(before, killed));
    }
    assert!(finished.len() >= 2 * kills, "{finished:?}");
    finished
}

#[tokio::test(flavor = "multi_thread")]
async fn every_finished_scrape_outlives_kills_while_the_receiver_is_down() {
    let stage = Stage::new().await;
    let finished = kill_often(&stage, scale(4, 100)).await;
    assert_eq!(stage.taken(), [0; 0]);
    let _last = stage.start();
    stage.receiver_is(true);
    stage.scrapes(2).await;
    stage.takes(stage.answers()).await;
    let came = stage.taken();
    assert_all_in_order(&came, &finished);
    assert_eq!(first_times(&came), came, "nothing was acknowledged before, so nothing comes twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_finished_scrape_outlives_kills_while_the_receiver_takes_them() {
    let stage = Stage::new().await;
    stage.receiver_is(true);
    let finished = kill_often(&stage, scale(4, 100)).await;
    let _last = stage.start();
    stage.scrapes(2).await;
    stage.takes(stage.answers()).await;
    assert_all_in_order(&stage.taken(), &finished);
}
