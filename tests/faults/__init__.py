"""Faults on purpose: every statement and commit of a batch is a numbered point at which something can break.

``injection``  counts the points inside a worker and breaks one of them
``nursery``    forks workers from a process that has imported everything already
``scenarios``  prepared batches, and the steps that work them off
``contents``   a whole database as values that two runs can be compared by
``harness``    a database server of its own, trials on it, and their verdict
``chaos``      the whole enumeration, and kills at random: ``make chaos``
"""
