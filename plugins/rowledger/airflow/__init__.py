"""Rowledger on Airflow: the only part that imports Airflow.

``tasks``     the bodies of the DAGs' tasks
``metrics``   what tasks measure, through Airflow's own metrics
``executor``  Airflow's LocalExecutor, with workers that may be killed
``desk``      the import desk behind Airflow's access control
``local``     a whole Airflow on this machine, for the demo and the tests
"""
