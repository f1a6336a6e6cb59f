"""Rowledger on Airflow: the only part that imports Airflow.

``tasks``  the bodies of the DAGs' tasks
``local``  a whole Airflow on this machine, for the demo and the tests
"""
