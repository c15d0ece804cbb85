//! Each way of owning, through pointers as C holds them.

use super::*;

struct Single([u8; 0]);
impl Handle for Single {
    const NAME: &'static str = "single";
    const KIND: Kind = Kind::Value;
    type Value = Vec<u8>;
    type Owner = Boxed;
}

struct Together([u8; 0]);
impl Handle for Together {
    const NAME: &'static str = "together";
    const KIND: Kind = Kind::Root;
    type Value = u8;
    type Owner = Shared;
}

struct Borrowed([u8; 0]);
impl Handle for Borrowed {
    const NAME: &'static str = "borrowed";
    const KIND: Kind = Kind::Frames;
    type Value = Vec<u8>;
    type Owner = Lent;
}

fn given<C: Handle>(owned: Owned<C>) -> *mut C {
    let mut pointer = std::ptr::null_mut();
    // SAFETY: the place is a local.
    unsafe { give(&raw mut pointer, owned) }.unwrap();
    pointer
}

fn message<T>(result: Result<T>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn a_box_goes_out_and_is_freed_once() {
    let pointer: *mut Single = given(Box::new(vec![1]));
    exclusive(pointer).unwrap().push(2);
    assert_eq!(*reference(pointer).unwrap(), [1, 2]);
    free(pointer);
    assert!(message(reference(pointer)).contains("single: is a gp_value that was freed"));
    assert!(message(exclusive(pointer)).contains("was freed"));
    assert!(message(free_live(pointer)).contains("was freed"));
}

#[test]
fn a_share_is_counted_once_however_often_it_is_borrowed() {
    let ours = Arc::new(7);
    let pointer: *mut Together = given(Arc::clone(&ours));
    assert!(Arc::ptr_eq(&share(pointer).unwrap(), &ours));
    let kept = Arc::clone(&share(pointer).unwrap());
    assert_eq!(Arc::strong_count(&ours), 3);
    free(pointer);
    assert_eq!(Arc::strong_count(&ours), 2);
    assert_eq!(*kept, 7);
    assert!(message(share(pointer)).contains("was freed"));
}

#[test]
fn a_share_that_is_taken_back_is_refused_the_second_time() {
    let ours = Arc::new(7);
    let pointer: *mut Together = given(Arc::clone(&ours));
    let back = take_share(pointer).unwrap().unwrap();
    assert_eq!(Arc::strong_count(&ours), 2, "the caller's share is back");
    drop(back);
    assert!(message(take_share(pointer)).contains("was freed"));
    assert_eq!(Arc::strong_count(&ours), 1);
}

#[test]
fn what_is_freed_while_it_is_used_is_ended_by_its_user() {
    let ours = Arc::new(7);
    let pointer: *mut Together = given(Arc::clone(&ours));
    let used = share(pointer).unwrap();
    free(pointer);
    assert_eq!((**used, Arc::strong_count(&ours)), (7, 2));
    assert!(message(share(pointer)).contains("was freed"));
    drop(used);
    assert_eq!(Arc::strong_count(&ours), 1);
}

#[test]
fn two_calls_do_not_change_one_object() {
    let pointer: *mut Single = given(Box::new(vec![1]));
    let first = exclusive(pointer).unwrap();
    let why = exclusive(pointer).err().unwrap();
    assert!(matches!(why, Error::State(_)), "{why}");
    assert!(why.to_string().contains("another call"), "{why}");
    drop(first);
    exclusive(pointer).unwrap().push(2);
    free(pointer);
}

#[test]
fn another_types_pointer_is_refused_by_its_name() {
    let pointer: *mut Together = given(Arc::new(7));
    let why = message(exclusive(pointer.cast::<Single>()));
    assert!(why.contains("is a gp_root, no gp_value"), "{why}");
    let number = 5_u64;
    let why = message(share((&raw const number).cast::<Together>()));
    assert!(why.contains("is no gp_root of this library"), "{why}");
    free(pointer);
}

#[test]
fn null_is_refused_by_the_name_of_its_argument() {
    assert!(message(reference::<Single>(std::ptr::null())).contains("single: is NULL"));
    assert!(message(exclusive::<Single>(std::ptr::null_mut())).contains("single: is NULL"));
    assert!(message(share::<Together>(std::ptr::null())).contains("together: is NULL"));
    assert!(
        take_share::<Together>(std::ptr::null_mut())
            .unwrap()
            .is_none()
    );
    free::<Together>(std::ptr::null_mut());
}

#[test]
fn what_nobody_receives_is_freed() {
    let ours = Arc::new(7);
    // SAFETY: NULL is refused.
    let given = unsafe { give::<Together>(std::ptr::null_mut(), Arc::clone(&ours)) };
    assert!(message(given).contains("out"));
    assert_eq!(Arc::strong_count(&ours), 1);
}

#[test]
fn what_was_lent_is_refused_when_its_callback_is_over() {
    let mut kept = std::ptr::null_mut();
    let made = lend(vec![1], |pointer: *mut Borrowed| {
        exclusive(pointer).unwrap().push(2);
        kept = pointer;
    });
    assert_eq!(made, [1, 2]);
    assert!(message(exclusive(kept)).contains("borrowed: is a gp_frames that was freed"));
}
