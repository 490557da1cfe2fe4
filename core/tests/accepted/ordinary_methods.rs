//! The block is emitted as it was written: its methods, attributes, constants and macros stay what they are.
#![deny(missing_docs, unused, unreachable_pub)]

use amends::{Call, StepResult, reject, saga};

/// A saga whose steps carry names that ask for care.
#[derive(Debug)]
pub struct Trip {
    /// How many seats there are.
    pub seats: u8,
}

/// Books a trip.
#[saga(name = "trip", version = 3, input = u8)]
#[allow(clippy::needless_pass_by_value)]
impl Trip {
    #![allow(clippy::unused_self)]

    /// An item that is no method.
    pub const MOST: Seats = Seats { most: 9 };

    /// Its name is that of a step; the macro makes way.
    pub const TELL: u8 = 1;

    /// Its name is a keyword.
    #[amends::step(call, compensate = r#yield)]
    pub async fn r#try(&self, _call: &Call, input: &u8) -> StepResult<u8> {
        if *input > self.seats { Err(reject("full")) } else { Ok(self.left(*input)) }
    }

    /// It returns nothing but success, and reads what ran long before.
    #[step(call, compensate = none, name = "say-so")]
    async fn tell(&self, _call: &Call, mut input: &u8, r#try: &u8) -> StepResult<()> {
        if *input > *r#try {
            input = r#try;
        }
        let _ = input;
        Ok(())
    }

    /// What it returns is not recorded.
    #[compensate]
    async fn r#yield(&self, _call: &Call, r#try: Option<&u8>, input: &u8) -> StepResult<u8> {
        Ok(r#try.copied().unwrap_or(*input))
    }

    fn left(&self, taken: u8) -> u8 {
        self.seats - taken
    }
}

/// How many seats there may be.
#[derive(Debug)]
pub struct Seats {
    /// At most.
    pub most: u8,
}

#[tokio::test]
async fn methods_are_called_as_they_were_written() {
    let trip = Trip { seats: Trip::MOST.most };
    let call = Call::test("trip");
    assert_eq!(trip.r#try(&call, &2).await.unwrap(), 7);
    assert!(trip.r#try(&call, &10).await.is_err());
    trip.tell(&call, &2, &7).await.unwrap();
    assert_eq!(trip.r#yield(&call, None, &2).await.unwrap(), 2);
    assert_eq!((Trip::TRY.name(), Trip::TELL), ("try", 1));
    assert_eq!(Trip::DEFINITION.to_string(), "saga trip v3\n  call try, undone by call yield\n  call say-so after try");
}
