//! A model of the protocol between replicas, which is searched for violations of what the protocol promises.
//!
//! A step is one statement in the database, or something that happens in one replica between two statements: a poll,
//! the beginning of a save, the end of a read. Between any two steps, the others may do anything, so a replica may stand
//! still for as long as it likes. A statement may fail, or take effect without its replica being told, but it takes no
//! effect after its replica gave it up. Leases may expire at any time. Plans and leases are computed by the code of the
//! program.
//!
//! Each shard has one watch, whose only run finishes at some time.

mod search;

use super::plan::SharePlan;
use crate::store::{Leases, Membership, OwnerState};
use crate::toggle::Shard;

/// The ids of replicas. Each restart takes the next one that is free.
const IDS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// How many rounds of fair steps may pass until everything is shared and saved.
const ROUNDS: usize = 6;

/// What a replica, or the database, would do wrong in another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    /// A claim takes effect whoever owns the shard by now.
    ClaimsWithoutCondition,
    /// The new owner of a shard that is handed over has the epoch of the old one.
    KeepsEpoch,
    /// A save takes effect whatever the epoch is.
    SavesWithoutFence,
    /// A save has the epochs of the time when it is sent, and not of the state that it saves.
    FencesWhenSent,
    /// A claim that is confirmed gives the replica its lease before it has read the state.
    OwnsBeforeReading,
    /// What a failed save did not save can take effect after a later one.
    SavesLate,
    /// A finish is counted before it is saved.
    CountsBeforeSaving,
    /// A finish is kept for counting although its shard had another owner.
    CountsWhatWasLost,
    /// Unsaved state is dropped where the replica has no lease.
    DropsUnsaved,
    /// The owners that were read before shards were handed over are believed afterwards.
    BelievesOldOwners,
}

/// How large a model is, and what it does wrong.
#[derive(Debug, Clone, Copy)]
struct Scope {
    replicas: usize,
    /// How many of them have joined at the start, and share everything.
    joined: usize,
    /// Whether nothing happens between statements that read one after the other.
    is_coarse: bool,
    /// How many things may go wrong.
    faults: u8,
    /// How many polls may find something new that is no finish.
    news: u8,
    mistake: Option<Mistake>,
}

/// Everything: the database, the replicas and the API.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ModelState<const S: usize> {
    /// The ids whose lease has not expired, as bits.
    live: u16,
    shards: [ShardRow; S],
    /// A save that its replica gave up, and that may take effect yet.
    late: Option<(u8, Batch<S>)>,
    replicas: Vec<ModelReplica<S>>,
    /// How many ids were used.
    ids: u8,
    /// Whether the run has finished at the API.
    is_over: [bool; S],
    /// How often its finish was counted.
    counted: [u8; S],
    /// How many more things may go wrong.
    faults: u8,
    /// How many more polls may find something new that is no finish.
    news: u8,
}

/// The row of a shard, and that of its watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct ShardRow {
    owner: Option<u8>,
    epoch: u8,
    version: u8,
    finished: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ModelReplica<const S: usize> {
    id: u8,
    task: Next<S>,
    /// Who has been seen saving what.
    seen: [u8; S],
    /// What it polls, and in which epochs. Without the database it may poll in none.
    owned: [bool; S],
    leases: [Option<u8>; S],
    /// Its board: whether the run has finished, whether that is to be saved, and whether the finish is to be counted.
    finished: [bool; S],
    unsaved: [bool; S],
    uncounted: [bool; S],
    /// What is being saved.
    batch: Option<Batch<S>>,
    /// The newest epoch in which it handed the shard over.
    gave: [u8; S],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Batch<const S: usize> {
    leases: [Option<u8>; S],
    finished: [Option<bool>; S],
    uncounted: [bool; S],
}

/// What the coordinator of a replica does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Next<const S: usize> {
    /// Nothing: the process is gone.
    Dead,
    Read(After),
    ReadState {
        read: Owners<S>,
        after: After,
    },
    Apply {
        read: Owners<S>,
        state: [Option<bool>; S],
        after: After,
    },
    Save {
        given: [Given; S],
        claimed: [Option<u8>; S],
        read: Owners<S>,
    },
    HandOver {
        given: [Given; S],
        claimed: [Option<u8>; S],
        read: Owners<S>,
    },
    Claim([Option<u8>; S]),
    Renew,
    /// It stops, and has its shards handed over when they are saved.
    Leave,
}

/// Whether a shard is given, and to whom.
type Given = Option<Option<u8>>;

/// What follows when the state of the others has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum After {
    Join,
    Divide,
    Repeat,
}

/// The live replicas, and each shard's owner, epoch and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owners<const S: usize> {
    live: u16,
    shards: [ShardRow; S],
}

/// How a statement ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatementResult {
    Confirmed,
    /// It took effect, and the replica sees an error.
    Lost,
    Failed,
}

/// Something that happens; the numbers are those of replicas, shards and ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Coordinate(usize, StatementResult),
    Renew(usize),
    /// The shards are not saved in time, so they are not handed over yet.
    GiveUp(usize),
    BeginSave(usize),
    EndSave(usize, StatementResult),
    LateSave,
    Poll(usize, usize),
    RunOver(usize),
    Expire(u8),
    /// A replica that has never reached the database polls everything.
    PollAll(usize),
    Crash(usize),
    Restart(usize),
    Leave(usize),
}

// === impl Step ===

impl Step {
    fn goes_wrong(self) -> bool {
        match self {
            Self::Coordinate(_, reply) | Self::EndSave(_, reply) => reply != StatementResult::Confirmed,
            Self::PollAll(_) | Self::Crash(_) | Self::Leave(_) | Self::Expire(_) => true,
            _ => false,
        }
    }
}

// === impl ModelReplica ===

impl<const S: usize> ModelReplica<S> {
    fn new(id: u8) -> Self {
        Self {
            id,
            task: Next::Read(After::Join),
            seen: [0; S],
            owned: [false; S],
            leases: [None; S],
            finished: [false; S],
            unsaved: [true; S],
            uncounted: [false; S],
            batch: None,
            gave: [0; S],
        }
    }

    fn name(&self) -> &'static str {
        IDS[usize::from(self.id)]
    }

    fn is_idle(&self) -> bool {
        self.task == Next::Read(After::Divide)
    }

    fn leases(&self) -> Leases {
        let mut leases = Leases::default();
        for (shard, epoch) in self.leases.into_iter().enumerate() {
            leases.set(number(shard), epoch.map(i64::from));
        }
        leases
    }

    /// Whether everything in these shards is saved.
    fn has_saved(&self, shards: impl Fn(usize) -> bool) -> bool {
        self.batch.is_none() && (0..S).all(|shard| !(shards(shard) && self.saves(shard) && self.unsaved[shard]))
    }

    fn saves(&self, shard: usize) -> bool {
        self.leases[shard].is_some()
    }

    fn poll(&mut self, shard: usize, is_over: bool) {
        self.unsaved[shard] = true;
        self.uncounted[shard] |= is_over && !self.finished[shard];
        self.finished[shard] |= is_over;
    }

    fn begin_save(&mut self, mistake: Option<Mistake>) {
        let mut batch = Batch { leases: self.leases, finished: [None; S], uncounted: [false; S] };
        for shard in 0..S {
            if self.saves(shard) && self.unsaved[shard] {
                batch.finished[shard] = Some(self.finished[shard]);
                batch.uncounted[shard] = std::mem::take(&mut self.uncounted[shard]);
                self.unsaved[shard] = false;
            } else if mistake == Some(Mistake::DropsUnsaved) {
                self.unsaved[shard] = false;
                self.uncounted[shard] = false;
            }
        }
        self.batch = Some(batch);
    }

    /// Keeps what was not saved.
    fn keep_unsaved(&mut self, batch: &Batch<S>, saved: [bool; S], mistake: Option<Mistake>) {
        for shard in (0..S).filter(|shard| batch.finished[*shard].is_some() && !saved[*shard]) {
            self.unsaved[shard] = true;
            let was_lost = batch.leases[shard] != self.leases[shard];
            let counts = !was_lost || mistake == Some(Mistake::CountsWhatWasLost);
            self.uncounted[shard] |= batch.uncounted[shard] && counts;
        }
    }

    /// Takes over what others saved, and owns what the database says.
    fn apply(&mut self, read: &Owners<S>, state: [Option<bool>; S], mistake: Option<Mistake>) {
        let leases = Leases::of(self.name(), &read.membership());
        let gained = leases.gained_since(&self.leases());
        for (shard, saved) in state.into_iter().enumerate() {
            let stays = leases.epoch(number(shard)).is_some() && !gained.contains(number(shard));
            if let Some(finished) = saved.filter(|_| !stays) {
                self.finished[shard] = finished;
                self.unsaved[shard] = false;
                self.uncounted[shard] &= mistake == Some(Mistake::CountsWhatWasLost);
            }
            self.leases[shard] = leases.epoch(number(shard)).and_then(|epoch| u8::try_from(epoch).ok());
            self.owned[shard] = self.leases[shard].is_some();
            self.seen[shard] = self.seen[shard].max(read.shards[shard].version);
        }
    }
}

// === impl Next ===

impl<const S: usize> Next<S> {
    /// Claims shards, if there are any; else what is done otherwise.
    fn claim_or(claimed: [Option<u8>; S], otherwise: Self) -> Self {
        if claimed.iter().any(Option::is_some) { Self::Claim(claimed) } else { otherwise }
    }
}

// === impl Owners ===

impl<const S: usize> Owners<S> {
    fn membership(&self) -> Membership {
        let name = |id: u8| IDS[usize::from(id)].to_owned();
        let state = |(shard, row): (usize, &ShardRow)| OwnerState {
            shard: number(shard),
            owner: row.owner.map(name),
            epoch: row.epoch.into(),
            version: row.version.into(),
        };
        let ids = (0..16).filter(|id| self.live & (1 << id) != 0);
        Membership {
            replicas: ids.map(name).collect(),
            shards: self.shards.iter().enumerate().map(state).collect(),
            ..Membership::default()
        }
    }
}

/// The shard with this index in a model.
fn number(shard: usize) -> Shard {
    Shard::all().nth(shard).unwrap()
}

/// The id with this name.
fn id(name: &str) -> u8 {
    u8::try_from(IDS.iter().position(|id| *id == name).unwrap()).unwrap()
}

// === impl ModelState ===

impl<const S: usize> ModelState<S> {
    fn new(scope: Scope) -> Self {
        let Scope { faults, news, .. } = scope;
        let replicas = (0..scope.replicas).map(|id| ModelReplica::new(u8::try_from(id).unwrap()));
        let mut state = Self {
            live: 0,
            shards: [ShardRow::default(); S],
            late: None,
            replicas: replicas.collect(),
            ids: u8::try_from(scope.replicas).unwrap(),
            is_over: [false; S],
            counted: [0; S],
            faults,
            news,
        };
        for number in (0..scope.joined).cycle().take(scope.joined * ROUNDS) {
            state.fair_round(number, scope).unwrap();
        }
        state
    }

    fn is_live(&self, id: u8) -> bool {
        self.live & (1 << id) != 0
    }

    fn owners(&self) -> Owners<S> {
        Owners { live: self.live, shards: self.shards }
    }

    /// What can happen next.
    fn steps(&self, scope: Scope) -> Vec<Step> {
        let mut steps = Vec::new();
        let may_fail = self.faults > 0;
        let statement = |steps: &mut Vec<Step>, step: fn(usize, StatementResult) -> Step, replica, writes| {
            steps.push(step(replica, StatementResult::Confirmed));
            steps.extend((may_fail && writes).then(|| step(replica, StatementResult::Lost)));
            steps.extend(may_fail.then(|| step(replica, StatementResult::Failed)));
        };
        for (number, replica) in self.replicas.iter().enumerate() {
            let is_joining = matches!(replica.task, Next::Read(After::Join));
            match replica.task {
                Next::Dead => {
                    steps.extend((usize::from(self.ids) < IDS.len() && may_fail).then_some(Step::Restart(number)));
                    continue;
                }
                Next::Apply { .. } => steps.push(Step::Coordinate(number, StatementResult::Confirmed)),
                Next::Save { given, .. } => {
                    let is_saved = replica.has_saved(|shard| given[shard].is_some());
                    steps.extend(is_saved.then_some(Step::Coordinate(number, StatementResult::Confirmed)));
                    steps.extend((!is_saved).then_some(Step::GiveUp(number)));
                }
                Next::Leave => {
                    // The last save was tried.
                    if replica.batch.is_none() {
                        statement(&mut steps, Step::Coordinate, number, true);
                    }
                }
                task => {
                    let writes = matches!(task, Next::HandOver { .. } | Next::Claim(_) | Next::Renew);
                    if is_joining {
                        steps.push(Step::Coordinate(number, StatementResult::Confirmed));
                    } else {
                        statement(&mut steps, Step::Coordinate, number, writes);
                    }
                }
            }
            let is_leaving = replica.task == Next::Leave;
            steps.extend((replica.is_idle() && !self.is_live(replica.id)).then_some(Step::Renew(number)));
            match replica.batch {
                Some(_) => statement(&mut steps, Step::EndSave, number, true),
                None if !replica.has_saved(|_| true) => steps.push(Step::BeginSave(number)),
                None if scope.mistake == Some(Mistake::DropsUnsaved) => steps.push(Step::BeginSave(number)),
                None => {}
            }
            let is_finish = |shard: usize| self.is_over[shard] && !replica.finished[shard];
            let is_news = |shard: usize| !self.is_over[shard] && !replica.unsaved[shard] && self.news > 0;
            let polled = (0..S).filter(|shard| replica.owned[*shard] && !is_leaving);
            steps.extend(
                polled.filter(|shard| is_finish(*shard) || is_news(*shard)).map(|shard| Step::Poll(number, shard)),
            );
            let was_never_there = is_joining && replica.seen == [0; S] && replica.owned == [false; S];
            steps.extend((was_never_there && may_fail).then_some(Step::PollAll(number)));
            steps.extend((may_fail && !is_leaving).then_some(Step::Leave(number)));
            steps.extend(may_fail.then_some(Step::Crash(number)));
        }
        steps.extend((0..S).filter(|shard| !self.is_over[*shard]).map(Step::RunOver));
        steps.extend((0..self.ids).filter(|id| self.is_live(*id) && may_fail).map(Step::Expire));
        steps.extend(self.late.is_some().then_some(Step::LateSave));
        steps
    }

    /// Takes a step.
    ///
    /// # Errors
    /// If it breaks a promise.
    fn take(&mut self, step: Step, scope: Scope) -> Result<(), String> {
        self.faults -= u8::from(step.goes_wrong());
        match step {
            Step::Coordinate(replica, reply) => return self.coordinate(replica, reply, scope),
            Step::EndSave(replica, reply) => return self.end_save(replica, reply, scope.mistake),
            Step::Renew(replica) => self.live |= 1 << self.replicas[replica].id,
            Step::GiveUp(replica) => {
                if let Next::Save { claimed, .. } = self.replicas[replica].task {
                    self.replicas[replica].task = Next::claim_or(claimed, Next::Read(After::Repeat));
                }
            }
            Step::BeginSave(replica) => {
                self.replicas[replica].begin_save(scope.mistake);
                if scope.mistake == Some(Mistake::CountsBeforeSaving) {
                    let uncounted = self.replicas[replica].batch.map_or([false; S], |batch| batch.uncounted);
                    return self.count(uncounted);
                }
            }
            Step::LateSave => {
                if let Some((id, batch)) = self.late.take() {
                    self.save(id, &batch, batch.leases, scope.mistake)?;
                }
            }
            Step::Poll(replica, shard) => {
                self.news -= u8::from(!self.is_over[shard]);
                self.replicas[replica].poll(shard, self.is_over[shard]);
            }
            Step::RunOver(shard) => self.is_over[shard] = true,
            Step::Expire(id) => self.live &= !(1 << id),
            Step::PollAll(replica) => self.replicas[replica].owned = [true; S],
            Step::Crash(replica) => self.replicas[replica].task = Next::Dead,
            Step::Restart(replica) => {
                self.replicas[replica] = ModelReplica::new(self.ids);
                self.ids += 1;
            }
            Step::Leave(replica) => self.replicas[replica].task = Next::Leave,
        }
        Ok(())
    }

    /// The next step of the coordinator of a replica.
    fn coordinate(&mut self, number: usize, reply: StatementResult, scope: Scope) -> Result<(), String> {
        let (task, id) = (self.replicas[number].task, self.replicas[number].id);
        let owners = self.owners();
        if reply != StatementResult::Failed {
            match task {
                Next::HandOver { given, .. } => self.hand_over(number, given, scope.mistake),
                Next::Claim(claimed) => self.claim(number, claimed, reply, scope.mistake),
                Next::Renew => self.live |= 1 << id,
                Next::Leave => {
                    self.live &= !(1 << id);
                    let others = self.owners().membership().replicas;
                    for (shard, row) in self.shards.iter_mut().enumerate().filter(|(_, row)| row.owner == Some(id)) {
                        row.owner = self::number(shard).preferred(others.iter().map(String::as_str)).map(self::id);
                        row.epoch += 1;
                    }
                }
                _ => {}
            }
        }
        let replica = &mut self.replicas[number];
        if let Next::HandOver { given, .. } = task {
            // It had stopped polling. What it had seen until then is saved as long as nobody else owns the shard.
            for shard in (0..S).filter(|shard| given[*shard].is_some()) {
                if reply != StatementResult::Failed {
                    replica.gave[shard] = replica.leases[shard].unwrap_or_default();
                }
                replica.owned[shard] = false;
            }
        }
        if reply != StatementResult::Confirmed {
            replica.task = if task == Next::Leave { Next::Dead } else { Next::Read(After::Join) };
            return Ok(());
        }
        replica.task = match task {
            Next::Read(after) => Next::ReadState { read: owners, after },
            Next::ReadState { read, after } => {
                let is_new = |shard: usize| read.shards[shard].version > replica.seen[shard];
                let state = std::array::from_fn(|shard| is_new(shard).then_some(owners.shards[shard].finished));
                Next::Apply { read, state, after }
            }
            Next::Apply { read, state, after } => {
                replica.apply(&read, state, scope.mistake);
                let gives_back =
                    (0..S).find(|shard| replica.leases[*shard].is_some_and(|of| of <= replica.gave[*shard]));
                if let Some(shard) = gives_back {
                    return Err(format!("{} owns shard {shard} again, which it handed over", replica.name()));
                }
                match after {
                    After::Join => Next::Renew,
                    After::Divide => replica.plan(&read),
                    After::Repeat => Next::Read(After::Divide),
                }
            }
            Next::Save { given, claimed, read } => Next::HandOver { given, claimed, read },
            Next::HandOver { claimed, read, .. } => match scope.mistake {
                Some(Mistake::BelievesOldOwners) => {
                    Next::claim_or(claimed, Next::ReadState { read, after: After::Repeat })
                }
                _ => Next::claim_or(claimed, Next::Read(After::Repeat)),
            },
            Next::Claim(_) => Next::Read(After::Repeat),
            Next::Renew => Next::Read(After::Divide),
            Next::Leave | Next::Dead => Next::Dead,
        };
        match replica.task {
            Next::Apply { .. } if scope.is_coarse => self.coordinate(number, reply, scope),
            _ => Ok(()),
        }
    }

    fn hand_over(&mut self, number: usize, given: [Given; S], mistake: Option<Mistake>) {
        for (shard, row) in self.shards.iter_mut().enumerate() {
            if let Some(to) = given[shard].filter(|_| self.replicas[number].leases[shard] == Some(row.epoch)) {
                row.owner = to.filter(|to| self.live & (1 << to) != 0);
                row.epoch += u8::from(mistake != Some(Mistake::KeepsEpoch));
            }
        }
    }

    fn claim(&mut self, number: usize, claimed: [Option<u8>; S], reply: StatementResult, mistake: Option<Mistake>) {
        let replica = &mut self.replicas[number];
        for (shard, row) in self.shards.iter_mut().enumerate() {
            let Some(seen) = claimed[shard] else { continue };
            let is_free = seen == row.epoch && row.owner.is_none_or(|owner| self.live & (1 << owner) == 0);
            if is_free || mistake == Some(Mistake::ClaimsWithoutCondition) {
                (row.owner, row.epoch) = (Some(replica.id), seen + 1);
                if reply == StatementResult::Confirmed && mistake == Some(Mistake::OwnsBeforeReading) {
                    replica.leases[shard] = Some(row.epoch);
                }
            }
        }
    }

    fn end_save(&mut self, number: usize, reply: StatementResult, mistake: Option<Mistake>) -> Result<(), String> {
        let replica = &mut self.replicas[number];
        let (id, Some(batch)) = (replica.id, replica.batch.take()) else { return Ok(()) };
        let fence = if mistake == Some(Mistake::FencesWhenSent) { replica.leases } else { batch.leases };
        let saved = match reply {
            StatementResult::Confirmed | StatementResult::Lost => self.save(id, &batch, fence, mistake)?,
            StatementResult::Failed => {
                self.late = (mistake == Some(Mistake::SavesLate)).then_some((id, batch));
                [false; S]
            }
        };
        let known = if reply == StatementResult::Confirmed { saved } else { [false; S] };
        self.replicas[number].keep_unsaved(&batch, known, mistake);
        match mistake {
            Some(Mistake::CountsBeforeSaving) => Ok(()),
            _ => self.count(std::array::from_fn(|shard| known[shard] && batch.uncounted[shard])),
        }
    }

    /// The statement of a save. Returns where it took effect.
    fn save(
        &mut self,
        id: u8,
        batch: &Batch<S>,
        fence: [Option<u8>; S],
        mistake: Option<Mistake>,
    ) -> Result<[bool; S], String> {
        let mut saved = [false; S];
        for (shard, row) in self.shards.iter_mut().enumerate() {
            let Some(finished) = batch.finished[shard] else { continue };
            if fence[shard] != Some(row.epoch) && mistake != Some(Mistake::SavesWithoutFence) {
                continue;
            }
            let name = IDS[usize::from(id)];
            if row.owner != Some(id) || batch.leases[shard] != Some(row.epoch) {
                return Err(format!("{name} saves shard {shard}, which it does not own any more"));
            }
            if row.finished && !finished {
                return Err(format!("{name} overwrites the saved finish in shard {shard}"));
            }
            (row.finished, row.version, saved[shard]) = (finished, row.version + 1, true);
        }
        Ok(saved)
    }

    fn count(&mut self, finishes: [bool; S]) -> Result<(), String> {
        for (shard, counted) in self.counted.iter_mut().enumerate() {
            *counted += u8::from(finishes[shard]);
            if *counted > 1 {
                return Err(format!("the finish in shard {shard} is counted twice"));
            }
        }
        Ok(())
    }

    /// A replica does everything that it does from time to time, and nothing goes wrong.
    fn fair_round(&mut self, number: usize, scope: Scope) -> Result<(), String> {
        self.live |= 1 << self.replicas[number].id;
        for _ in 0..16 {
            for shard in (0..S).filter(|shard| self.is_over[*shard]) {
                if self.replicas[number].owned[shard] && !self.replicas[number].finished[shard] {
                    self.replicas[number].poll(shard, true);
                }
            }
            if self.replicas[number].batch.is_none() {
                self.take(Step::BeginSave(number), scope)?;
            }
            self.take(Step::EndSave(number, StatementResult::Confirmed), scope)?;
            match self.replicas[number].task {
                Next::Save { .. } if !self.replicas[number].has_saved(|_| true) => {
                    self.take(Step::GiveUp(number), scope)?;
                }
                _ => self.take(Step::Coordinate(number, StatementResult::Confirmed), scope)?,
            }
            if self.replicas[number].is_idle() || self.replicas[number].task == Next::Dead {
                break;
            }
        }
        Ok(())
    }

    /// Has all runs finish and everything go well, and checks that everything is shared, saved and known then.
    fn settle(mut self, scope: Scope) -> Result<(), String> {
        self.is_over = [true; S];
        let running: Vec<_> = (0..scope.replicas).filter(|number| self.replicas[*number].task != Next::Dead).collect();
        // A lease expires if nobody renews it.
        self.live = running.iter().fold(0, |live, number| live | 1 << self.replicas[*number].id);
        for number in running.iter().cycle().take(running.len() * ROUNDS) {
            if self.replicas[*number].task == Next::Dead {
                self.live &= !(1 << self.replicas[*number].id);
            } else {
                self.fair_round(*number, scope)?;
            }
        }
        let running: Vec<_> = self.replicas.iter().filter(|replica| replica.task != Next::Dead).collect();
        for (shard, row) in self.shards.iter().enumerate().filter(|_| !running.is_empty()) {
            for replica in &running {
                let is_owner = row.owner == Some(replica.id);
                if is_owner != replica.owned[shard] || is_owner != (replica.leases[shard] == Some(row.epoch)) {
                    return Err(format!("{} does not know who owns shard {shard}", replica.name()));
                }
                if !replica.finished[shard] {
                    return Err(format!("{} does not know of the finish in shard {shard}", replica.name()));
                }
            }
            if !running.iter().any(|replica| row.owner == Some(replica.id)) {
                return Err(format!("nobody who runs owns shard {shard}"));
            }
            if !row.finished {
                return Err(format!("the finish in shard {shard} is not saved"));
            }
        }
        Ok(())
    }
}

impl<const S: usize> ModelReplica<S> {
    /// Plans as the program does.
    fn plan(&self, read: &Owners<S>) -> Next<S> {
        let plan = SharePlan::of(self.name(), &read.membership(), &self.leases(), true);
        let index = |shard: Shard| usize::from(shard.number());
        let (mut given, mut claimed) = ([None; S], [None; S]);
        for (shard, to) in plan.give {
            given[index(shard)] = Some(to.as_deref().map(id));
        }
        for state in plan.claim {
            claimed[index(state.shard)] = u8::try_from(state.epoch).ok();
        }
        match (given.iter().any(Option::is_some), claimed.iter().any(Option::is_some)) {
            (true, _) => Next::Save { given, claimed, read: *read },
            (false, true) => Next::Claim(claimed),
            (false, false) => Next::Read(After::Divide),
        }
    }
}
