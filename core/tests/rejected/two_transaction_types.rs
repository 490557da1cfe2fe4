use amends::{StepResult, memory::MemoryTx, saga};

struct OtherTx;
struct Trip;

#[saga(name = "trip", version = 1, input = u8)]
impl Trip {
    #[step(tx, compensate = none)]
    async fn flight(&self, _tx: &mut MemoryTx) -> StepResult<u8> {
        Ok(1)
    }

    #[step(tx, compensate = none)]
    async fn hotel(&self, _tx: &mut OtherTx) -> StepResult<u8> {
        Ok(1)
    }
}

fn main() {
    let _ = Trip;
}
