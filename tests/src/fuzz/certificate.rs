//! The target for certificates.

use ledger::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use ledger::units::Height;

use super::canonical;
use super::fixture::fixture;

/// Reads a certificate. If it fits the validators, its signatures collected again give the same
/// certificate. If it holds, it is of a quorum and proves one block only.
pub fn certificate(data: &[u8]) -> bool {
    let Some(certificate) = canonical::<Certificate>(data, CERTIFICATE_BYTES_MAX) else {
        return false;
    };
    let fixture = fixture();
    let (id, validators) = (fixture.chain.id(), fixture.chain.validators(certificate.height));
    let Certificate { height, round, block, signatures, .. } = certificate.clone();
    let signers = certificate.signer_keys(validators);
    if !signers.is_empty() {
        let collected = Certificate::new(
            height,
            round,
            block,
            validators,
            signers.iter().copied().zip(signatures),
        );
        assert_eq!(collected, certificate, "the same votes give the same certificate");
    }
    if certificate.verify(id, validators, height, block).is_ok() {
        let power: u64 =
            signers.iter().filter_map(|key| Some(validators.find(key)?.1.power.0)).sum();
        assert!(power >= validators.quorum_power().0, "{power} is no quorum");
        assert!(
            certificate.verify(id, validators, height, block).is_ok(),
            "a certificate that holds stays so"
        );
        let other = Height(height.0.wrapping_add(1));
        assert!(
            certificate.verify(id, validators, other, block).is_err(),
            "it holds for one height"
        );
        let known = fixture.block(height).map(|(block, _)| block.hash());
        assert_eq!(known, Some(block), "nobody signed another block");
    }
    true
}
