//! What comes next in a copy, and who helps with it.

use futures_util::FutureExt as _;

use super::*;
use pgferry_plan::TableName;

const MB: u64 = 1 << 20;

fn table(name: &str, megabytes: u64, pieces: &[BlockRange], indexes: usize) -> CopyTable {
    let index = Index {
        name: "i".into(),
        bytes: megabytes * MB / 10,
        is_btree: true,
        create: Some("CREATE INDEX".into()),
        complete: vec!["ALTER TABLE".into()],
    };
    CopyTable {
        name: TableName::new("public", name),
        bytes: megabytes * MB,
        blocks: megabytes * 128,
        in_parts: pieces != [BlockRange::WHOLE],
        pieces: pieces.iter().map(|range| (*range, (0, 0))).collect(),
        indexes: vec![index; indexes],
        ..CopyTable::default()
    }
}

fn queue(tables: Vec<CopyTable>) -> Queue {
    Queue::new(tables.into(), Seats::of(4, 256 * MB), 16 * MB)
}

/// The index that comes next: its table, and how many are to help.
async fn next_index(queue: &Queue) -> (usize, usize) {
    match queue.next(None).await {
        Some(Work::Index(building)) => (building.table, building.helpers),
        other => panic!("{other:?}"),
    }
}

fn halves(blocks: u64) -> [BlockRange; 2] {
    [BlockRange { first: 0, end: Some(blocks / 2) }, BlockRange { first: blocks / 2, end: None }]
}

#[tokio::test]
async fn a_table_is_one_workers_until_none_is_left_to_begin() {
    let queue =
        queue(vec![table("large", 100, &halves(12800), 0), table("second", 50, &halves(6400), 0)]);
    let tables = async |last| match queue.next(last).await {
        Some(Work::Copy(pieces)) => pieces[0].table,
        other => panic!("{other:?}"),
    };
    assert_eq!(tables(None).await, 0);
    assert_eq!(tables(None).await, 1);
    assert_eq!(tables(None).await, 0, "nothing is left to begin: it helps");
}

#[tokio::test]
async fn indexes_follow_their_tables_last_row_and_constraints_the_last_index() {
    let queue = queue(vec![table("orders", 100, &halves(12800), 2)]);
    let first = queue.next(None).await.unwrap();
    let second = queue.next(None).await.unwrap();
    assert!(!queue.done(&first));
    assert!(queue.done(&second), "the last row of all");
    let one = queue.next(None).await.unwrap();
    let two = queue.next(None).await.unwrap();
    let build = |index, helpers| Work::Index(Building { table: 0, index, helpers });
    assert_eq!((&one, &two), (&build(1, 1), &build(0, 1)), "half of all seats each");
    queue.done(&one);
    queue.done(&two);
    let last = queue.next(None).await.unwrap();
    assert_eq!(last, Work::Complete(0));
    queue.done(&last);
    assert_eq!(queue.next(None).await, None);
}

#[tokio::test]
async fn small_tables_bring_their_indexes_along() {
    let queue =
        queue(vec![table("a", 1, &[BlockRange::WHOLE], 1), table("b", 1, &[BlockRange::WHOLE], 1)]);
    let work = queue.next(None).await.unwrap();
    assert!(matches!(&work, Work::Copy(pieces) if pieces.len() == 2), "{work:?}");
    assert!(queue.done(&work));
    assert_eq!(queue.next(None).await, None);
}

#[tokio::test]
async fn what_is_there_already_goes_straight_to_its_indexes() {
    let queue = queue(vec![table("orders", 100, &[], 1)]);
    assert_eq!(next_index(&queue).await, (0, 3), "nobody else has anything to do");
}

#[tokio::test]
async fn an_index_that_outweighs_the_others_is_built_by_several_from_its_beginning() {
    let queue = queue(vec![table("heavy", 160, &[], 1), table("light", 80, &[], 3)]);
    assert_eq!(next_index(&queue).await, (0, 1), "two fifths of all: two seats of four");
    assert_eq!(next_index(&queue).await, (1, 0));
    let third = queue.next(None).await.unwrap();
    assert_eq!(queue.next(None).now_or_never(), None, "every seat is taken");
    queue.done(&third);
    assert_eq!(next_index(&queue).await, (1, 0), "a seat was left");
}

#[tokio::test]
async fn a_build_that_is_given_back_gives_its_helpers_back() {
    let queue = queue(vec![table("orders", 100, &[], 1)]);
    for _ in 0..2 {
        let build = queue.next(None).await.unwrap();
        assert_eq!(build, Work::Index(Building { table: 0, index: 0, helpers: 3 }));
        queue.give_back(build);
    }
    assert_eq!(next_index(&queue).await, (0, 3));
}

#[tokio::test]
async fn an_index_gets_no_help_while_much_is_left_to_copy() {
    let queue = queue(vec![table("large", 400, &halves(51200), 1), table("there", 50, &[], 1)]);
    let first = queue.next(None).await;
    assert!(matches!(first, Some(Work::Copy(_))), "{first:?}");
    assert_eq!(next_index(&queue).await, (1, 0));
}

#[tokio::test]
async fn what_is_given_back_is_taken_again() {
    let queue = queue(vec![
        table("large", 100, &halves(12800), 0),
        table("small", 1, &[BlockRange::WHOLE], 0),
    ]);
    let (one, two) = (queue.next(None).await.unwrap(), queue.next(None).await.unwrap());
    queue.give_back(one.clone());
    queue.give_back(two.clone());
    let mut left = 0;
    while let Some(work) = queue.next(None).await {
        left += 1;
        queue.done(&work);
    }
    assert_eq!(left, 3);
}

#[tokio::test]
async fn no_seat_is_kept_for_a_worker_that_the_server_never_starts() {
    let helpers = async |memory: u64, megabytes: u64, is_btree: bool| {
        let mut large = table("large", megabytes, &[], 1);
        large.indexes[0].is_btree = is_btree;
        let queue = Queue::new(vec![large].into(), Seats::of(8, memory), 16 * MB);
        next_index(&queue).await.1
    };
    assert_eq!(helpers(1024 * MB, 10_000, true).await, 7);
    assert_eq!(helpers(1024 * MB, 10_000, false).await, 0, "of another kind");
    assert_eq!(helpers(96 * MB, 10_000, true).await, 2, "32 MB for each of three");
    assert_eq!(helpers(1024 * MB, 100, true).await, 3, "a table of 8, 24, 72 MB");
    assert_eq!(helpers(1024 * MB, 7, true).await, 0);
}
