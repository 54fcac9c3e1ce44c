# The types that Cython needs to compile _core.py, and the C functions that stand for Python ones there.
#
# Attributes are `public` because this package and `net` use them from Python. Methods that are named here are called
# without going through Python; cpdef ones can still be overridden (tasklets.testing does so). The rest are ordinary.

cimport cython


cdef extern from "greenlet/greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet, check_size ignore]:
        pass

    void PyGreenlet_Import()
    object PyGreenlet_Switch(greenlet target, void *args, void *kwargs)
    greenlet PyGreenlet_GetCurrent()


cdef extern from "_data_stack.h":
    void tasklets_keep_chunks()
    void tasklets_begin_small()
    void tasklets_give_back()


cdef extern from *:
    """
    /* threading.local costs 20 ns, the compiler's own thread-local storage 2. It holds a borrowed reference: the strong
       one is in the threading.local, which is emptied on the thread that ends. */
    #if defined(_MSC_VER)
    #define TASKLETS_THREAD_LOCAL __declspec(thread)
    #else
    #define TASKLETS_THREAD_LOCAL __thread
    #endif
    static TASKLETS_THREAD_LOCAL PyObject *tasklets_scheduler = NULL;
    static PyObject *tasklets_unborn = NULL;

    static CYTHON_INLINE PyObject *tasklets_get_scheduler(void) {
        PyObject *found = tasklets_scheduler != NULL ? tasklets_scheduler : tasklets_unborn;
        Py_INCREF(found);
        return found;
    }
    #define tasklets_remember_scheduler(scheduler) (tasklets_scheduler = (scheduler))
    #define tasklets_forget_scheduler(scheduler) \
        (tasklets_scheduler = tasklets_scheduler == (scheduler) ? NULL : tasklets_scheduler)
    #define tasklets_name_unborn(scheduler) (Py_INCREF(scheduler), tasklets_unborn = (scheduler))
    #ifndef TASKLETS_SOURCE_DIGEST
    #define TASKLETS_SOURCE_DIGEST "unknown"
    #endif
    static const char tasklets_source_digest[] = "tasklets-source-digest:" TASKLETS_SOURCE_DIGEST;
    #define tasklets_name_type(type, name) (((PyTypeObject *)(type))->tp_name = (name))
    """
    Scheduler tasklets_get_scheduler()
    void remember_scheduler "tasklets_remember_scheduler" (object scheduler)
    void forget_scheduler "tasklets_forget_scheduler" (object scheduler)
    void name_unborn "tasklets_name_unborn" (object scheduler)
    const char *made_of "tasklets_source_digest"
    void name_type "tasklets_name_type" (object type, const char *name)

    ctypedef class _thread._local [object PyObject, check_size ignore]:
        @property
        cdef inline Scheduler scheduler(self):
            return tasklets_get_scheduler()


cdef inline object _switch(greenlet target):
    return PyGreenlet_Switch(target, NULL, NULL)


@cython.final
cdef class bomb:
    cdef public object value


cdef class Entry:
    cdef public Entry _next
    cdef public Entry _prev
    cdef public bint _special
    cdef public object tempval


cdef class tasklet(Entry):
    cdef object __weakref__
    cdef public object _alarm
    cdef public bint _alive
    cdef public bint _atomic
    cdef public object _call
    cdef public channel _channel
    cdef public object _context
    cdef public greenlet _greenlet
    cdef public bint _ignore_nesting
    cdef public object _later_alarms
    cdef public Scheduler _scheduler
    cdef public object _waiting
    cdef public object _wake
    cdef public int _traps
    cdef public object name


cdef class channel:
    cdef object __weakref__
    cdef public int _balance
    cdef public object _buffer
    cdef public Entry _first
    cdef public object _freeze
    cdef public Entry _last
    cdef public object _observer
    cdef public int _preference
    cdef public bint _schedule_all
    cdef public object capacity
    cdef public object closing
    cdef public object name

    @cython.locals(scheduler=Scheduler, me=tasklet, partner=tasklet, after=Entry)
    cpdef object send(self, value)
    @cython.locals(scheduler=Scheduler, me=tasklet, partner=tasklet, after=Entry)
    cpdef object receive(self)
    cpdef object _refill(self)
    cpdef object _push(self, Entry entry, int direction)
    cpdef object _unshift(self, Entry entry, int direction)
    cpdef object _shift(self)
    cpdef object _discard(self, Entry entry)


cdef class Scheduler:
    cdef object __weakref__
    cdef public double _clock_seen
    cdef public object _failure
    cdef public double _hub_visit
    cdef public tasklet _last_blocked
    cdef public greenlet _root
    cdef public greenlet _starter
    cdef public object _successor
    cdef public long _switches_left
    cdef public long _retired
    cdef public tasklet _target
    cdef public bint alone
    cdef public bint asleep
    cdef public object bell
    cdef public long count
    cdef public tasklet current
    cdef public list endings
    cdef public tasklet head
    cdef public list idle
    cdef public object inbox
    cdef public tasklet last_run
    cdef public dict limits
    cdef public tasklet main
    cdef public bint quiet
    cdef public object reactor
    cdef public list runners
    cdef public list sources
    cdef public object thread_id
    cdef public bint threadblock
    cdef public int trap
    cdef public long waiting
    cdef public long workers

    cpdef object append(self, tasklet one)
    @cython.locals(head=tasklet, last=Entry)
    cpdef object link(self, tasklet one)
    @cython.locals(before=Entry, after=tasklet)
    cpdef object unlink(self, tasklet one)
    cpdef object wake(self, tasklet one)
    cpdef object switch_to(self, tasklet target)
    @cython.locals(target=tasklet, worker=greenlet)
    cpdef object switch_to_target(self)
    @cython.locals(following=tasklet)
    cpdef object give_way(self)
    cpdef object wait_in(self, tasklet me)
    cpdef object _regain(self, tasklet me)
    cpdef object _pause(self)
    @cython.locals(runner=tasklet)
    cpdef object _when_empty(self, tasklet me)
    cpdef object _result(self, tasklet me)
    @cython.locals(following=tasklet, before=Entry, last=Entry, worker=greenlet, is_resumed=bint)
    cpdef object block(self, tasklet me, channel where, int direction)
    cpdef object refuse_if_trapped(self)
    cpdef object may_yield(self)
    @cython.locals(after=Entry, head=tasklet, last=Entry, worker=greenlet)
    cpdef object meet(self, channel where, tasklet me, tasklet partner, bint partner_first)
    cpdef object end_wait(self, tasklet one, value)
    @cython.locals(me=tasklet, following=tasklet, due=bint, is_resumed=bint, worker=greenlet)
    cpdef object schedule(self, retval)
    cpdef object schedule_remove(self, retval)
    @cython.locals(me=tasklet)
    cpdef object run_now(self, tasklet target, bint leave=*)
    @cython.locals(me=tasklet, above=tasklet)
    cpdef object run(self)
    cpdef object check_alarm(self, tasklet me)
    @cython.locals(goes_on=bint)
    cpdef object _work(self)
    @cython.locals(worker=greenlet, target=tasklet, has_data=bint)
    cpdef bint _take_next(self) except -1
    @cython.locals(me=tasklet)
    cpdef tuple _begin(self)
    cpdef object _judge(self)
    cpdef bint _end(self, tasklet one) except -1
    cpdef object _after_end(self, failure)
    cpdef object turn(self)
    cpdef bint _hub_is_due(self) except -1
    @cython.locals(now=double)
    cpdef bint _look_at_hub(self) except -1
    cpdef object _enter_hub(self)


cdef bint _watching
cdef bint _gevent_is_there
cdef object _CURRENT
cdef _local _thread
cdef Scheduler _UNBORN

cpdef Scheduler get_scheduler()
cpdef tasklet getcurrent()
@cython.locals(scheduler=Scheduler)
cpdef object schedule(retval=*)
@cython.locals(scheduler=Scheduler)
cpdef object schedule_remove(retval=*)
