//! Writes the corpora of the fuzz targets: `cargo run -p tests --example fuzz_corpus`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, _) in tests::fuzz::TARGETS {
        let corpus = corpora.join(target);
        std::fs::create_dir_all(&corpus)?;
        for (name, bytes) in tests::fuzz::samples(target) {
            std::fs::write(corpus.join(name), bytes)?;
        }
    }
    Ok(())
}
