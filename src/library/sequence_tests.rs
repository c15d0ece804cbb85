//! Random sequences of calls: a bounded part of what `make fuzz` does without end.

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40000))]

    #[test]
    fn no_sequence_of_calls_does_harm(input in vec(any::<u8>(), 0..200)) {
        crate::sequence::run(&input);
    }
}
