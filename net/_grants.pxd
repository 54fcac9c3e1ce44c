# The types that Cython needs to compile _grants.py.

from tasklets._core cimport channel as TheChannel


cdef class Grant:
    cdef public bint at_home
    cdef public TheChannel channel
    cdef public bytes channel_id
    cdef public object count
    cdef public object granted
    cdef public long half_window
    cdef public object link  # a test gives what it needs of one
    cdef public int rights
    cdef public long room
    cdef public Py_ssize_t room_bytes
    cdef public bint takes
    cdef public bint told_soon
    cdef public long used
    cdef public Py_ssize_t used_bytes
    cdef public Py_ssize_t waiting_bytes
    cdef public long window

    cpdef object tell_room(self)
    cpdef object let_wait(self, Py_ssize_t size)
    cpdef long take_room(self)
