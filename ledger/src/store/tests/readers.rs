//! What readers must return.

use super::*;

/// Checks that readers return everything that was committed, and nothing more.
pub(super) fn check_readers(store: &Store, chain: &Chain, blocks: &[Committed]) {
    assert_eq!(store.kept().len(), usize::from(store.read_view().tip.segments > 0));
    check_partial(store, chain, blocks, |_| true);
}

/// Checks that readers return all blocks of a chain that a store keeps, and say of the others that
/// they are not kept.
pub(super) fn check_partial(
    store: &Store,
    chain: &Chain,
    blocks: &[Committed],
    is_kept: impl Fn(Height) -> bool,
) {
    let all = blocks.iter().all(|committed| is_kept(committed.block.height()));
    let tip = blocks.last().unwrap();
    assert_eq!(store.tip(), (tip.block.height(), tip.block.hash()));
    let genesis = Certificate::genesis(chain.id());
    assert_eq!(store.certificate(Height(0)).unwrap(), Kept::Here(genesis));
    let mut segments = 0;
    for committed in blocks {
        let (height, block) = (committed.block.height(), &committed.block);
        let (header, certificate) = (block.header().clone(), committed.certificate.clone());
        if !is_kept(height) {
            check_not_kept(store, committed, is_kept(height.next()));
            segments += u64::from(committed.sealed.is_some());
            continue;
        }
        assert_eq!(store.block_bytes(height).unwrap(), Kept::Here(block.bytes().to_vec()));
        assert_eq!(store.block_length(height).unwrap(), Kept::Here(block.bytes().len()));
        assert_eq!(store.header(height).unwrap(), Kept::Here(header));
        let stored = store.block(height).unwrap().map(|block| codec::encode(&block));
        assert_eq!(stored, Kept::Here(block.bytes().to_vec()));
        assert_eq!(store.height_of(&block.hash()).unwrap(), Kept::Here(height));
        assert_eq!(store.certificate(height).unwrap(), Kept::Here(certificate));
        // Of a long chain only a part, since each look-up takes its time.
        let step = blocks.len() as u64 / 50 + 1;
        for (index, transaction) in (0..).zip(&block.block().transactions) {
            if (height.0 + u64::from(index)) % step > 0 {
                continue;
            }
            assert_eq!(
                store.find_transaction(&transaction.id()).unwrap(),
                Kept::Here((height, index)),
                "{index} at {height}"
            );
        }
        if let Some(sealed) = &committed.sealed {
            assert_eq!(store.segment(segments).unwrap(), Kept::Here(sealed.clone()));
            assert_eq!(
                store.chunk_hashes(segments).unwrap(),
                Kept::Here((sealed.descriptor, sealed.chunks.clone()))
            );
            segments += 1;
        }
    }
    assert_eq!(store.segment(segments).unwrap(), Kept::Never);
    assert_eq!(store.chunk_hashes(segments).unwrap(), Kept::Never);
    let beyond = tip.block.height().next();
    for height in [Height(0), beyond, Height(u64::MAX)] {
        assert_eq!(store.block_bytes(height).unwrap(), Kept::Never);
        assert_eq!(store.header(height).unwrap(), Kept::Never);
    }
    assert_eq!(store.certificate(beyond).unwrap(), Kept::Never);
    let height = store.height_of(&BlockHash(Hash::ZERO)).unwrap();
    assert_eq!(height, if all { Kept::Never } else { Kept::NotKept });
    let place = store.find_transaction(&TxId(Hash::ZERO)).unwrap();
    assert_eq!(place, if all { Kept::Never } else { Kept::NotKept });
}

/// Checks that readers say of a block and of its segment that they are not kept. Header and
/// certificate may be there: those of the last block of a segment, and the certificate also in a
/// child that is kept.
fn check_not_kept(store: &Store, committed: &Committed, has_child: bool) {
    let (height, block) = (committed.block.height(), &committed.block);
    assert_eq!(store.block_bytes(height).unwrap(), Kept::NotKept);
    assert_eq!(store.block_length(height).unwrap(), Kept::NotKept);
    assert_eq!(store.block(height).unwrap(), Kept::NotKept);
    assert_eq!(store.height_of(&block.hash()).unwrap(), Kept::NotKept);
    if let Some(transaction) = block.block().transactions.first() {
        assert_eq!(store.find_transaction(&transaction.id()).unwrap(), Kept::NotKept);
    }
    let (header, certificate) = (store.header(height).unwrap(), store.certificate(height).unwrap());
    let is_last = committed.sealed.is_some();
    assert!(header == Kept::NotKept || is_last && header == Kept::Here(block.header().clone()));
    assert!(
        certificate == Kept::NotKept && !has_child
            || (is_last || has_child) && certificate == Kept::Here(committed.certificate.clone())
    );
    if let Some(sealed) = &committed.sealed {
        let (index, rules) = (sealed.descriptor.index, store.shared.chain.history_rules());
        assert_eq!(store.segment(index).unwrap(), Kept::NotKept);
        assert_eq!(store.chunk_hashes(index).unwrap(), Kept::NotKept);
        assert_eq!(store.chunk(index, 0, &rules).unwrap(), Kept::NotKept);
        assert_eq!(store.descriptors(index, Height(u64::MAX), 1), [sealed.descriptor]);
    }
}
